"""Guessing tokens ahead: from the text so far (n-gram lookup), or with a small model in a context of its own.

A guess costs nothing but time: the model computes all guessed tokens in one step, its own choice is made at each of
them in turn, and the first that differs ends the step. So the text is the one that it would have chosen alone, greedy
or drawn. A draft model draws with the noise of the request's own seed and step, which makes it agree with the
model's draw as often as their distributions are alike (a Gumbel coupling).
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

# The last so many tokens are looked up in the text before, the longest match first.
_NGRAMS = (4, 3, 2)
_SAMPLE_OF_VOCABULARY = 4096


class Drafter(ABC):
    """Guesses tokens for the sequences of a batch. For the loop's thread alone, but for the making of it.

    Attributes:
        name: what it's called.
        tokens: guesses a step, at most.
    """

    name: str
    tokens: int

    def start(self, params: Any) -> None:  # noqa: B027 - most need nothing
        """Make what it needs on the loop's thread; `params` is a fresh `llama_context_params` of the model's own."""

    @abstractmethod
    def propose(self, running: Items[Sequence]) -> None:
        """Set `draft` of the sequences that decode; of one that it has no guess for it stays empty."""

    def leave(self, one: Sequence) -> None:  # noqa: B027
        """A sequence leaves its slot."""

    def free(self) -> None:  # noqa: B027
        """Free what it holds."""

    def room(self, one: Sequence) -> int:
        """How many tokens may be guessed for a sequence: none in its prompt, none past its limit."""
        if len(one.tokens) - one.computed != 1 or not one.generated:
            return 0
        return min(self.tokens, one.limit - len(one.tokens) - 1)


class Lookup(Drafter):
    """N-gram lookup: what followed the last tokens when they occurred before (A. Saxena, Prompt Lookup Decoding, 2023).

    Args:
        tokens: guesses a step, at most.
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
        """Forget the sequence."""
        self._tables.pop(one, None)

    def _find(self, one: Sequence) -> int:
        """Where the latest earlier occurrence of the last tokens ends; 0 when there is none."""
        tokens = one.tokens
        table, known = self._tables.get(one, ({}, 0))
        size = len(tokens)
        # What ends before the last token, so that the last tokens don't find themselves.
        for end in range(max(known, _NGRAMS[-1]), size):
            for length in _NGRAMS:
                if end >= length:
                    table[tuple(tokens[end - length : end])] = end
        self._tables[one] = (table, size)
        return next((table[key] for n in _NGRAMS if (key := tuple(tokens[-n:])) in table), 0)


class DraftModel(Drafter):
    """A small model of the same vocabulary; its KV cache has a sequence for each slot of the model's.

    Args:
        model: its weights, freed with it.
        name: what it's called.
        tokens: guesses a step, at most.
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
        # By slot: the tokens in the KV cache, and whose first ones they are known to be.
        self._held: dict[int, list[int]] = {}
        self._known: dict[int, int] = {}

    def start(self, params: Any) -> None:
        """Make the context: as the model's own, with one row of logits a sequence."""
        params.n_outputs_max = params.n_seq_max
        params.n_threads = params.n_threads_batch = self._threads
        params.rope_freq_base = params.rope_freq_scale = 0.0
        self._context = NativeContext(self._model, params)
        code, peak = self._context.probe()
        if code == 0 and not math.isfinite(peak):
            raise not_finite(peak, f"The draft model {self.name}")

    def propose(self, running: Items[Sequence]) -> None:
        """See `Drafter.propose`. Guesses all sequences' first tokens in one step, then all second ones, and so on."""
        context = self._context
        if context is None:
            return
        longest = self._model.trained_context
        asked = [(one, room) for one in running if (room := self.room(one)) > 0 and len(one.tokens) + room < longest]
        going = self._catch_up(context, asked)
        at = 0
        while going:
            rest = []
            at = 0
            for one, room, row in going:
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
            going = rest

    def leave(self, one: Sequence) -> None:
        """The slot's next sequence compares all of its tokens with what is held."""
        if one.slot is not None:
            self._known.pop(one.slot.id, None)

    def free(self) -> None:
        """Free context and weights."""
        if self._context is not None:
            self._context.free()
        self._model.free()

    def _catch_up(self, context: NativeContext, asked: list[tuple[Sequence, int]]) -> list[tuple[Sequence, int, int]]:
        """Compute what the draft hasn't seen yet, a batch of it at most; gives who is ready, with the row of logits."""
        ready = []
        at = 0
        for one, room in asked:
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
            whole = keep + len(todo) == len(one.tokens)
            for place, token in enumerate(todo):
                self._put(context, at, token, keep + place, slot, output=whole and place == len(todo) - 1)
                at += 1
            held.extend(todo)
            self._known[slot] = len(held)
            if whole:
                ready.append((one, room, at - 1))
        if at and context.decode(at) != 0:
            self._forget(one for one, _ in asked)
            return []
        return ready

    def _choose(self, context: NativeContext, one: Sequence, row: int) -> int:
        if one.greedy:
            return int(context.logits(row).argmax())
        return self._drawer.draw(one.chain, context.logits(row), one.seed, one.generated + len(one.draft))

    def _forget(self, sequences: Any) -> None:
        """After a failed step nobody knows what the KV cache holds of these."""
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
    """Why a draft model's tokens aren't the model's, in a few words; "" when they are the same."""
    if model.vocab_size != draft.vocab_size:
        return f"{draft.vocab_size:,} tokens in place of {model.vocab_size:,}"
    step = max(model.vocab_size // _SAMPLE_OF_VOCABULARY, 1)
    for token in range(0, model.vocab_size, step):
        mine, other = model.token_text(token), draft.token_text(token)
        if mine != other:
            return f"token {token} is {other!r} in place of {mine!r}"
    return ""


def _slot(one: Sequence) -> int:
    assert one.slot is not None
    return one.slot.id
