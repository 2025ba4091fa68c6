"""The batch of one step: which tokens of which sequences are computed, and which of them output logits."""

from __future__ import annotations

from typing import Any

from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.sequence import Sequence, share_budget


class Batch:
    """The current step. Not thread-safe: for the loop's thread only.

    Args:
        context: the context whose batch it fills.
        prompt_chunk: most prompt tokens per step while other sequences decode.

    Attributes:
        sequences: the sequences in the step, all with the same adapter mix.
        count: tokens in the batch.
        prompt_tokens: how many of them are prompt.
        outputs: rows of logits it outputs; a sequence's `row` is an index into them.
        repeated: the layout is that of the step before.
    """

    def __init__(self, context: NativeContext, prompt_chunk: int) -> None:
        self.sequences: list[Sequence] = []
        self.count = self.prompt_tokens = self.outputs = 0
        self.repeated = False
        self._context = context
        self._chunk = prompt_chunk
        # The sequences of the current layout, if each has exactly one token in it; after a successful step they are
        # also `_steady`: as long as they don't change, only tokens and positions need updating.
        self._laid: list[Sequence] = []
        self._steady: list[Sequence] = []

    def fill(self, sequences: list[Sequence], *, alone: bool) -> None:
        """Add one token (plus drafted ones) of every decoding sequence, and an even share of prompt for the others.

        Args:
            sequences: the sequences of this step.
            alone: no other sequences are waiting for this step to end.
        """
        self.sequences = sequences
        steady, self._steady = self._steady, []
        if sequences == steady and all(len(one.tokens) - one.computed == 1 and not one.draft for one in sequences):
            context, count = self._context, self.count
            self.repeated = True
            if count == 1:
                one = sequences[0]
                context.tokens[0], context.positions[0] = one.tokens[-1], one.position
                return
            tokens: Any = context.tokens
            positions: Any = context.positions
            tokens[:count] = [one.tokens[-1] for one in sequences]
            positions[:count] = [one.position for one in sequences]
            return
        self.repeated = False
        self._lay_out(sequences, alone=alone)

    def _lay_out(self, sequences: list[Sequence], *, alone: bool) -> None:
        context = self._context
        prompts = [one for one in sequences if len(one.tokens) - one.computed > 1]
        guesses = sum(len(one.draft) for one in sequences)
        decoding = len(sequences) - len(prompts) + guesses
        if prompts:
            room = context.batch_size - decoding
            share_budget(prompts, room if alone and not decoding else min(self._chunk, room))
        tokens: Any = context.tokens
        positions: Any = context.positions
        ids: Any = context.sequences
        wanted: Any = context.outputs
        at = row = 0
        for one in sequences:
            start, place = one.computed, one.position
            slot = one.slot.id  # type: ignore[union-attr]
            decodes = len(one.tokens) - start == 1
            if decodes:
                one.share = 1
            share = one.share
            todo = one.tokens[start : start + share] + (one.draft if decodes else [])
            end = at + len(todo)
            tokens[at:end] = todo
            positions[at:end] = list(range(place, place + len(todo)))
            ids[at:end] = [slot] * len(todo)
            wanted[at:end] = [int(decodes)] * len(todo)
            one.row = -1
            if decodes:
                one.row, row = row, row + len(todo)
            elif share and start + share == len(one.tokens):
                wanted[end - 1] = 1
                one.row, row = row, row + 1
            at = end
        self.count, self.outputs, self.prompt_tokens = at, row, at - decoding
        self._laid = [] if prompts or guesses else list(sequences)

    def computed(self) -> None:
        """Record that the batch is now in the KV cache (except drafted tokens: see `Picker`)."""
        for one in self.sequences:
            share = one.share
            if share == 1:
                one.slot.tokens.append(one.tokens[one.computed])  # type: ignore[union-attr]
                one.computed += 1
            elif share:
                start = one.computed
                one.computed = end = start + share
                one.slot.tokens.extend(one.tokens[start:end])  # type: ignore[union-attr]
        self._steady = self._laid

    def resync(self) -> None:
        """After an aborted step, continue from what the KV cache contains."""
        for one in self.sequences:
            if one.share and one.slot is not None:
                # The last token is always recomputed, for its logits; drafted tokens are dropped.
                held = min(self._context.length(one.slot.id) + one.lag, len(one.tokens) - one.shifted - 1)
                self._context.drop(one.slot.id, held - one.lag)
                one.slot.tokens[:] = one.held(held)
                one.computed = held + one.shifted
