"""Conversations as token ids with labels: the loss is taken on the assistant's turns alone.

The text is cut where the assistant's turns begin and end, and each piece is tokenized by itself: a prompt gives the
same ids here as in an engine, which tokenizes it up to the same place. No `{% generation %}` marks are needed.
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
    """Token ids of one conversation, and for each the label: the id itself, or `IGNORED` where nothing is learned."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def learned(self) -> int:
        """Tokens that the loss is taken on (the first token of a sequence is never predicted)."""
        return sum(label != IGNORED for label in self.labels[1:])


class Masker:
    """Makes samples of rows, by a model's own template and tokenizer.

    Args:
        template: the Jinja chat template.
        special_tokens: `bos_token`, `eos_token`, ... as text.
        encode: text -> ids, special tokens in the text recognised and none added.
        limit: longest sample, in tokens; what is beyond is cut off.
    """

    def __init__(self, template: str | None, special_tokens: Mapping[str, str], encode: Any, limit: int) -> None:
        self._template = template
        self._special = dict(special_tokens)
        self._encode = encode
        self._limit = limit

    def samples(self, row: Row) -> list[Sample]:
        """The samples of a row: one; or one for each answer, where the template rewrites earlier turns.

        What has nothing to learn within the limit is left out.
        """
        pieces = self._pieces(row)
        whole = [pieces] if pieces is not None else [self._single(row, turn) for turn in row.learned]
        made = [self._sample(one) for one in whole]
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
        """The conversation as (text, learned) pieces; None when earlier turns read otherwise in the whole."""
        last = row.learned[-1]
        whole = self._render(row.messages[: last + 1], row, opened=False)
        pieces: list[tuple[str, bool]] = []
        done = 0
        for turn in row.learned:
            before = self._render(row.messages[:turn], row, opened=True)
            after = self._render(row.messages[: turn + 1], row, opened=False)
            # What an engine is given must be what stands in the whole.
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
                return None
            pieces += [(whole[done : len(before)], False), (whole[len(before) : len(after)], True)]
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
                "The model's chat template writes tool calls in a way that can't be learned from.",
                "Leave the rows with tool calls out, or write the calls as the turn's content.",
            )
        # A template that opens a turn with text of its own (a thinking block): the answer follows what it opens.
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
