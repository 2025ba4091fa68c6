"""Tokenize conversations with labels, so that only the assistant turns count for the loss.

The text is split where assistant turns begin and end, and each piece is tokenized separately, so that a prompt has the
same ids as in an engine, which tokenizes up to the same point. Templates don't need `{% generation %}` markers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.engines.templates import render
from llmlab.errors import BadInputError
from llmlab.training.data import Row
from llmlab.types import Message

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids of one conversation with labels: the id itself, or `IGNORED` where nothing is learned."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def learned(self) -> int:
        """The number of tokens that count for the loss (the first token of a sequence is never predicted)."""
        return sum(label != IGNORED for label in self.labels[1:])


class Masker:
    """Converts rows to samples with a model's chat template and tokenizer.

    Args:
        template: the Jinja chat template.
        special_tokens: `bos_token`, `eos_token`, ... as text.
        encode: text -> ids, with special tokens in the text recognised and none added.
        limit: maximum sample length in tokens; longer ones are cut.
    """

    def __init__(self, template: str | None, special_tokens: Mapping[str, str], encode: Any, limit: int) -> None:
        self._template = template
        self._special = dict(special_tokens)
        self._encode = encode
        self._limit = limit

    def samples(self, row: Row) -> list[Sample]:
        """The samples of a row: one, or one per answer if the template rewrites earlier turns.

        Samples with nothing to learn within the limit are left out.
        """
        pieces = self._pieces(row)
        texts = [pieces] if pieces is not None else [self._single(row, turn) for turn in row.learned]
        made = [self._sample(one) for one in texts]
        return [sample for sample in made if sample.learned]

    def _render(self, messages: Sequence[Message], row: Row, *, opened: bool) -> str:
        return render(
            self._template,
            messages,
            special_tokens=self._special,
            tools=row.tools or None,
            add_generation_prompt=opened,
        )

    def _pieces(self, row: Row) -> list[tuple[str, bool]] | None:
        """The conversation as (text, learned) pieces; None if the template renders earlier turns differently later."""
        last = row.learned[-1]
        full = self._render(row.messages[: last + 1], row, opened=False)
        pieces: list[tuple[str, bool]] = []
        done = 0
        for turn in row.learned:
            before = self._render(row.messages[:turn], row, opened=True)
            after = self._render(row.messages[: turn + 1], row, opened=False)
            # The prompts that an engine gets must be prefixes of the full text.
            if not (full.startswith(after) and after.startswith(before) and len(before) >= done):
                return None
            pieces += [(full[done : len(before)], False), (full[len(before) : len(after)], True)]
            done = len(after)
        return pieces

    def _single(self, row: Row, turn: int) -> list[tuple[str, bool]]:
        before = self._render(row.messages[:turn], row, opened=True)
        after = self._render(row.messages[: turn + 1], row, opened=False)
        if after.startswith(before):
            return [(before, False), (after[len(before) :], True)]
        message = row.messages[turn]
        if message.tool_calls:
            raise BadInputError(
                "Tool calls can't be learned with this model's chat template.",
                "Leave out the rows with tool calls, or write the calls as the turn's content.",
            )
        # The template opens a turn with its own text (a thinking block), which the answer follows.
        return [(before, False), (message.content + self._special.get("eos_token", ""), True)]

    def _sample(self, pieces: Sequence[tuple[str, bool]]) -> Sample:
        ids: list[int] = []
        labels: list[int] = []
        for text, learned in pieces:
            if text:
                tokens = list(self._encode(text))
                ids += tokens
                labels += tokens if learned else [IGNORED] * len(tokens)
        return Sample(tuple(ids[: self._limit]), tuple(labels[: self._limit]))
