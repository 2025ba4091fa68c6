"""Packs dialogs into rows of tokens with a mask: dialogs don't attend to each other, only answers are scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llmlab.zoo.training import corpus
from llmlab.zoo.training.template import END, render

SHORT_ROW, LONG_ROW = 256, 1024
_CHUNK = 2048


@dataclass
class Batch:
    """Packed rows: token ids, the number of each token's dialog (0: padding), and whether the next token is scored."""

    ids: Any
    segments: Any
    scored: Any

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int((self.segments > 0).sum())


def scored_positions(ids: list[int], assistant: int, end: int) -> list[bool]:
    """Mark the positions whose next token is written by the assistant.

    Args:
        ids: A dialog's tokens.
        assistant: The token that starts the assistant's turn.
        end: The token that ends a turn.

    Returns:
        One flag per position.
    """
    out, inside = [], False
    for token in ids:
        if inside and token == end:
            inside = False
        elif token == assistant:
            inside = True
        out.append(inside)
    return out


class _Packer:
    """First-fit packing of dialogs into rows of one length."""

    def __init__(self, length: int, rows: int) -> None:
        self.length, self.rows = length, rows
        self.open: list[list[tuple[list[int], list[bool]]]] = []
        self.room: list[int] = []

    def add(self, ids: list[int], scored: list[bool]) -> Batch | None:
        for row, room in enumerate(self.room):
            if room >= len(ids):
                self.open[row].append((ids, scored))
                self.room[row] -= len(ids)
                return None
        self.open.append([(ids, scored)])
        self.room.append(self.length - len(ids))
        # Keeping twice as many open rows as a batch needs leaves few gaps.
        return self._take() if len(self.open) >= 2 * self.rows else None

    def _take(self) -> Batch:
        import torch

        fullest = sorted(range(len(self.open)), key=lambda row: self.room[row])[: self.rows]
        ids = torch.zeros((self.rows, self.length), dtype=torch.long)
        segments = torch.zeros((self.rows, self.length), dtype=torch.long)
        scored = torch.zeros((self.rows, self.length), dtype=torch.bool)
        for row, source in enumerate(fullest):
            at = 0
            for number, (tokens, flags) in enumerate(self.open[source], start=1):
                span = slice(at, at + len(tokens))
                ids[row, span] = torch.tensor(tokens)
                segments[row, span] = number
                scored[row, span] = torch.tensor(flags)
                at += len(tokens)
        taken = set(fullest)
        self.open = [item for row, item in enumerate(self.open) if row not in taken]
        self.room = [item for row, item in enumerate(self.room) if row not in taken]
        return Batch(ids, segments, scored)


def batches(tokenizer: Any, seed: int, tokens: int, weights: Mapping[str, float] | None = None) -> Iterator[Batch]:
    """Pack the endless training stream; dialogs too long for a short row go into batches of long rows.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``.
        seed: Seeds the stream of dialogs.
        tokens: The size of a batch, a multiple of ``LONG_ROW``.
        weights: Sampling weight of each kind of dialog.

    Yields:
        Batches.
    """
    assistant, end = tokenizer.token_to_id("<|assistant|>"), tokenizer.token_to_id(END)
    short = _Packer(SHORT_ROW, tokens // SHORT_ROW)
    long = _Packer(LONG_ROW, tokens // LONG_ROW)
    stream = corpus.training_dialogs(seed, weights)
    while True:
        texts = [render(dialog.messages, dialog.tools) for dialog in islice(stream, _CHUNK)]
        for encoded in tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = encoded.ids[:LONG_ROW]
            packer = short if len(ids) <= SHORT_ROW else long
            batch = packer.add(ids, scored_positions(ids, assistant, end))
            if batch is not None:
                yield batch


def attention_mask(segments: Any) -> Any:
    """Build the mask of packed rows.

    Args:
        segments: The number of each position's dialog.

    Returns:
        A boolean tensor (rows, 1, length, length), True where a position may attend.
    """
    import torch

    length = segments.shape[1]
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool).tril()
