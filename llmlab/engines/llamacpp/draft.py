"""Speculative decoding: drafts tokens by n-gram lookup in the text so far, or with a small model in its own context.

A wrong draft costs only time: the model computes all drafted tokens in one step, samples its own token at each
position in turn, and ends the step at the first that differs. So the output is the same as without a draft, greedy
or sampled. A draft model samples with the noise of the request's own seed and step, so its tokens match the model's
as often as their distributions agree (a Gumbel coupling).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence as Items
from typing import Any

from llmlab.engines.llamacpp.native import NativeContext, NativeModel
from llmlab.engines.llamacpp.sampler import Drawer
from llmlab.engines.llamacpp.sequence import Sequence
from llmlab.engines.logits import not_finite

# N-gram lengths to look up in the earlier text, longest first.
_NGRAMS = (4, 3, 2)
_SAMPLE_OF_VOCABULARY = 4096


class Drafter(ABC):
    """Drafts tokens for the sequences of a batch. Apart from its construction, for the loop's thread only.

    Attributes:
        name: the draft model's name, or "ngram".
        tokens: most drafted tokens per step.
    """

    name: str
    tokens: int

    def start(self, params: Any) -> None:  # noqa: B027 - optional
        """Set up on the loop's thread; `params` is a new copy of the model's `llama_context_params`."""

    def use_threads(self, count: int) -> None:  # noqa: B027
        """Compute with at most so many threads from now on."""

    @abstractmethod
    def propose(self, running: Items[Sequence]) -> None:
        """Set `draft` of the decoding sequences; it stays empty if there is nothing to propose."""

    def leave(self, one: Sequence) -> None:  # noqa: B027
        """Called when a sequence leaves its slot."""

    def free(self) -> None:  # noqa: B027
        """Free its resources."""

    def room(self, one: Sequence) -> int:
        """How many tokens may be drafted for a sequence: none within its prompt, none past its limit."""
        if len(one.tokens) - one.computed != 1 or not one.generated:
            return 0
        return min(self.tokens, one.limit - len(one.tokens) - 1)


class Lookup(Drafter):
    """N-gram lookup (A. Saxena, Prompt Lookup Decoding, 2023): drafts what followed the last tokens the time before.

    Args:
        tokens: most drafted tokens per step.
    """

    def __init__(self, tokens: int) -> None:
        self.name = "ngram"
        self.tokens = tokens
        self._tables: dict[Sequence, tuple[dict[tuple[int, ...], int], int]] = {}

    def propose(self, running: Items[Sequence]) -> None:
        """See `Drafter.propose`."""
        for one in running:
            room = self.room(one)
            if room > 0:
                start = self._find(one)
                one.draft = one.tokens[start : start + room] if start else []

    def leave(self, one: Sequence) -> None:
        """Drop the sequence's table."""
        self._tables.pop(one, None)

    def _find(self, one: Sequence) -> int:
        """End of the latest earlier occurrence of the last tokens; 0 if there is none."""
        tokens = one.tokens
        table, known = self._tables.get(one, ({}, 0))
        size = len(tokens)
        # Index only n-grams that end before the last token, so that the last tokens don't match themselves.
        for end in range(max(known, _NGRAMS[-1]), size):
            for length in _NGRAMS:
                if end >= length:
                    table[tuple(tokens[end - length : end])] = end
        self._tables[one] = (table, size)
        return next((table[key] for n in _NGRAMS if (key := tuple(tokens[-n:])) in table), 0)


class DraftModel(Drafter):
    """A small model with the same vocabulary; its KV cache has one sequence per slot of the main model.

    Args:
        model: the draft model's weights, freed by `free`.
        name: the draft model's name.
        tokens: most drafted tokens per step.
        threads: CPU threads.
        ends: tokens that end a turn.
    """

    def __init__(self, model: NativeModel, name: str, tokens: int, *, threads: int, ends: Items[int]) -> None:
        self.name = name
        self.tokens = tokens
        self._model = model
        self._threads = threads
        self._ends = frozenset(ends)
        self._drawer = Drawer(model.vocab_size)
        self._context: NativeContext | None = None
        # By slot: the tokens in the KV cache, and how many of them are known to match the slot's sequence.
        self._held: dict[int, list[int]] = {}
        self._known: dict[int, int] = {}

    def start(self, params: Any) -> None:
        """Create the context: like the main model's, with one row of logits per sequence."""
        params.n_outputs_max = params.n_seq_max
        params.n_threads = params.n_threads_batch = self._threads
        params.rope_freq_base = params.rope_freq_scale = 0.0
        self._context = NativeContext(self._model, params)
        code, peak = self._context.probe()
        if code == 0 and not math.isfinite(peak):
            raise not_finite(peak, f"The draft model {self.name}")

    def use_threads(self, count: int) -> None:
        """See `Drafter.use_threads`."""
        if self._context is not None:
            self._context.use_threads(min(count, self._threads), min(count, self._threads))

    def propose(self, running: Items[Sequence]) -> None:
        """See `Drafter.propose`. Drafts all sequences' first tokens in one step, then all second ones, and so on."""
        context = self._context
        if context is None:
            return
        longest = self._model.trained_context
        pending = [(one, room) for one in running if (room := self.room(one)) > 0 and len(one.tokens) + room < longest]
        active = self._catch_up(context, pending)
        at = 0
        while active:
            rest = []
            at = 0
            for one, room, row in active:
                token = self._choose(context, one, row)
                one.draft.append(token)
                if len(one.draft) < room and token not in self._ends:
                    held = self._held[_slot(one)]
                    self._put(context, at, token, len(held), _slot(one), output=True)
                    held.append(token)
                    rest.append((one, room, at))
                    at += 1
            if rest and context.decode(at) != 0:
                self._forget(one for one, _, _ in rest)
                return
            active = rest

    def leave(self, one: Sequence) -> None:
        """Make the slot's next sequence compare all of its tokens with the KV cache."""
        if one.slot is not None:
            self._known.pop(one.slot.id, None)

    def free(self) -> None:
        """Free context and weights."""
        if self._context is not None:
            self._context.free()
        self._model.free()

    def _catch_up(self, context: NativeContext, pending: list[tuple[Sequence, int]]) -> list[tuple[Sequence, int, int]]:
        """Compute up to one batch of the missing tokens. Returns the sequences that are ready, with the logits row."""
        ready = []
        at = 0
        for one, room in pending:
            slot = _slot(one)
            held = self._held.setdefault(slot, [])
            keep = self._known.get(slot, 0)
            end = min(len(held), len(one.tokens) - 1)
            while keep < end and held[keep] == one.tokens[keep]:
                keep += 1
            keep = min(keep, len(one.tokens) - 1)
            if keep < len(held):
                context.drop(slot, keep)
                del held[keep:]
            todo = one.tokens[keep : keep + context.batch_size - at]
            complete = keep + len(todo) == len(one.tokens)
            for place, token in enumerate(todo):
                self._put(context, at, token, keep + place, slot, output=complete and place == len(todo) - 1)
                at += 1
            held.extend(todo)
            self._known[slot] = len(held)
            if complete:
                ready.append((one, room, at - 1))
        if at and context.decode(at) != 0:
            self._forget(one for one, _ in pending)
            return []
        return ready

    def _choose(self, context: NativeContext, one: Sequence, row: int) -> int:
        if one.greedy:
            return int(context.logits(row).argmax())
        return self._drawer.draw(one.chain, context.logits(row), one.seed, one.generated + len(one.draft))

    def _forget(self, sequences: Any) -> None:
        """Drop the KV cache of these sequences: after a failed step its contents are unknown."""
        for one in sequences:
            slot = _slot(one)
            self._held[slot] = []
            self._known.pop(slot, None)
            if self._context is not None:
                self._context.drop(slot, 0)

    @staticmethod
    def _put(context: NativeContext, at: int, token: int, position: int, slot: int, *, output: bool) -> None:
        context.tokens[at], context.positions[at] = token, position
        context.sequences[at], context.outputs[at] = slot, output


def vocabulary_differs(model: NativeModel, draft: NativeModel) -> str:
    """How a draft model's vocabulary differs from the model's, in a few words; "" if it is the same."""
    if model.vocab_size != draft.vocab_size:
        return f"{draft.vocab_size:,} tokens instead of {model.vocab_size:,}"
    step = max(model.vocab_size // _SAMPLE_OF_VOCABULARY, 1)
    for token in range(0, model.vocab_size, step):
        mine, other = model.token_text(token), draft.token_text(token)
        if mine != other:
            return f"token {token} is {other!r} instead of {mine!r}"
    return ""


def _slot(one: Sequence) -> int:
    assert one.slot is not None
    return one.slot.id
