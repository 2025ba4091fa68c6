"""Speculative decoding: drafts tokens by n-gram lookup in the text so far, or with a small model in its own context.

A wrong draft costs only time: the model computes all drafted tokens in one step, samples its own token at each
position in turn, and ends the step at the first that differs. So the output is the same as without a draft, greedy
or sampled, up to the rounding of a longer step: logits differ by 0.001 or so, and a near tie can fall differently. A
draft model samples with the noise of the request's own seed and step, so its tokens match the model's as often as
their distributions agree (a Gumbel coupling).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence as Items
from typing import Any

from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.engines.llamacpp.pace import Acceptance, Costs, length
from llmlab.engines.llamacpp.sampler import draw
from llmlab.engines.llamacpp.sequence import Sequence
from llmlab.engines.logits import not_finite

# N-gram lengths to look up in the earlier text, longest first, with the acceptance that is assumed at first: a text
# that has repeated 32 tokens goes on.
_NGRAMS = {32: 0.97, 16: 0.94, 8: 0.85, 4: 0.7, 3: 0.55, 2: 0.4}
_SHORTEST = min(_NGRAMS)
# The acceptance of a draft model's tokens that is assumed at first.
_PRIOR = 0.7
# A draft model that doesn't pay is tried again with so many tokens, after so many steps, and then ever less often.
_TRIAL, _RETRY, _LAST_RETRY = 3, 16, 256
_SAMPLE_OF_VOCABULARY = 4096
PADDING = 128
"""By how many tokens of padding the vocabularies may differ, as in llama.cpp's own speculative decoding."""


class Drafter(ABC):
    """Drafts tokens for the sequences of a batch. Apart from its construction, for the loop's thread only.

    Attributes:
        name: the draft model's name, or "ngram".
        tokens: most drafted tokens per step.
        costs: of steps and drafts on this machine; set before the first `propose`.
    """

    name: str
    tokens: int
    costs: Costs

    def start(self, params: Any) -> tuple[NativeModel, NativeContext] | None:  # noqa: ARG002 - optional
        """Set up on the loop's thread.

        Args:
            params: a new copy of the model's `llama_context_params`.

        Returns:
            The draft model and its context, if there is one.
        """
        return None

    def use_threads(self, count: int) -> None:  # noqa: B027
        """Compute with at most so many threads from now on."""

    def learn(self, one: Sequence, accepted: int) -> None:  # noqa: B027
        """Called after a step with how many of a sequence's drafted tokens were accepted."""

    @abstractmethod
    def propose(self, running: Items[Sequence]) -> None:
        """Set `draft` of the decoding sequences; it stays empty if there is nothing to propose."""

    def leave(self, one: Sequence) -> None:  # noqa: B027
        """Called when a sequence leaves its slot, and when tokens were taken back from it."""

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
        self._texts: dict[Sequence, _Text] = {}

    def propose(self, running: Items[Sequence]) -> None:
        """See `Drafter.propose`."""
        found = []
        for one in running:
            room = self.room(one)
            if room > 0:
                text = self._texts.setdefault(one, _Text())
                text.check_guess(one.tokens)
                start, chance = text.find(one.tokens)
                if start:
                    found.append((one, chance, start, room))
        if not found:
            return
        chances = [(chance.value, room) for _, chance, _, room in found]
        number = length(chances, len(running) - len(found), self.tokens, self.costs)
        for one, chance, start, room in found:
            if number:
                one.draft = _repeated(one.tokens[start : start + min(number, room)], min(number, room))
                self._texts[one].drafted = chance
            else:
                self._texts[one].guess = len(one.tokens), one.tokens[start], chance

    def learn(self, one: Sequence, accepted: int) -> None:
        """See `Drafter.learn`."""
        text = self._texts.get(one)
        if text is not None and text.drafted is not None:
            text.drafted.learn(len(one.draft), accepted)

    def leave(self, one: Sequence) -> None:
        """Drop what is known of the sequence."""
        self._texts.pop(one, None)


def _repeated(tokens: list[int], count: int) -> list[int]:
    """So many tokens: where the text ends before, it is assumed to repeat."""
    return (tokens * -(-count // len(tokens)))[:count]


class _Text:
    """The n-grams of a sequence, and how often what followed them was right, by their length.

    Attributes:
        drafted: the acceptance that the last draft was made with.
        guess: a token that wasn't drafted, since it didn't pay: its place, the token and the acceptance to update.
    """

    def __init__(self) -> None:
        self.drafted: Acceptance | None = None
        self.guess: tuple[int, int, Acceptance] | None = None
        self._ends: dict[tuple[int, ...], int] = {}
        self._known = 0
        self._chances = {size: Acceptance(prior) for size, prior in _NGRAMS.items()}

    def check_guess(self, tokens: list[int]) -> None:
        """Compare the token that was guessed with the one that came."""
        guess, self.guess = self.guess, None
        if guess is not None and guess[0] < len(tokens):
            guess[2].learn(1, int(tokens[guess[0]] == guess[1]))

    def find(self, tokens: list[int]) -> tuple[int, Acceptance]:
        """End of the latest earlier occurrence of the last tokens (0: none), and its acceptance."""
        size = len(tokens)
        # Index only n-grams that end before the last token, so that the last tokens don't match themselves.
        for end in range(max(self._known, _SHORTEST), size):
            for count in _NGRAMS:
                if end >= count:
                    self._ends[tuple(tokens[end - count : end])] = end
        self._known = size
        for count, chance in self._chances.items():
            found = self._ends.get(tuple(tokens[-count:]))
            if found is not None:
                return found, chance
        return 0, self._chances[_SHORTEST]


class DraftModel(Drafter):
    """A small model with the same vocabulary; its KV cache has one sequence per slot of the main model.

    Args:
        model: the draft model's weights, freed by `free`.
        name: the draft model's name.
        tokens: most drafted tokens per step.
        threads: CPU threads.
        ends: tokens that end a turn.
        vocabulary: the tokens that it shares with the model; it drafts no others.
    """

    def __init__(
        self,
        model: NativeModel,
        name: str,
        tokens: int,
        *,
        threads: int,
        ends: Items[int],
        vocabulary: int,
    ) -> None:
        self.name = name
        self.tokens = tokens
        self._chances: dict[Sequence, Acceptance] = {}
        # Steps since the last draft, and after how many of them to try again.
        self._skipped, self._retry = 0, _RETRY
        self._model = model
        self._threads = threads
        self._ends = frozenset(ends)
        self._vocabulary = vocabulary
        self._context: NativeContext | None = None
        # By slot: the tokens in the KV cache, and how many of them are known to match the slot's sequence.
        self._held: dict[int, list[int]] = {}
        self._known: dict[int, int] = {}

    def start(self, params: Any) -> tuple[NativeModel, NativeContext]:
        """Create the context: like the main model's, with one row of logits per sequence. See `Drafter.start`."""
        params.n_outputs_max = params.n_seq_max
        params.n_threads = params.n_threads_batch = self._threads
        params.rope_freq_base = params.rope_freq_scale = 0.0
        params.rope_scaling_type, params.yarn_orig_ctx = -1, 0  # the draft's own
        params.yarn_beta_fast = params.yarn_beta_slow = -1.0
        self._context = NativeContext(self._model, params)
        code, peak = self._context.probe()
        if code == 0 and not math.isfinite(peak):
            raise not_finite(peak, f"The draft model {self.name}")
        return self._model, self._context

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
        number = self._number(pending, len(running))
        if not number:
            return
        pending = [(one, min(room, number)) for one, room in pending]
        active = self._catch_up(context, pending)
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

    def _number(self, pending: list[tuple[Sequence, int]], running: int) -> int:
        """How many tokens to draft for each sequence."""
        chances = [(self._chances.setdefault(one, Acceptance(_PRIOR)).value, room) for one, room in pending]
        if not chances:
            return 0
        others = running - len(chances)
        number = length(chances, others, self.tokens, self.costs)
        if number:
            self._skipped, self._retry = 0, _RETRY
            return number
        self._skipped += 1
        if self._skipped <= self._retry:
            return 0
        self._skipped, self._retry = 0, min(2 * self._retry, _LAST_RETRY)
        # Not even if all were accepted: then there is nothing to find out.
        perfect = length([(1.0, room) for _, room in chances], others, self.tokens, self.costs)
        return min(self.tokens, _TRIAL) if perfect else 0

    def learn(self, one: Sequence, accepted: int) -> None:
        """See `Drafter.learn`."""
        if one in self._chances:
            self._chances[one].learn(len(one.draft), accepted)

    def leave(self, one: Sequence) -> None:
        """Make the slot's next sequence compare all of its tokens with the KV cache."""
        self._chances.pop(one, None)
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
        logits = context.logits(row)[: self._vocabulary]
        if one.greedy:
            return int(logits.argmax())
        return draw(logits, one.request.params, one.generated + len(one.draft))

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
    """How a draft model's vocabulary differs from the model's, in a few words; "" if only in padding at the end."""
    if abs(model.vocab_size - draft.vocab_size) > PADDING:
        return f"{draft.vocab_size:,} tokens instead of {model.vocab_size:,}"
    shared = min(model.vocab_size, draft.vocab_size)
    step = max(shared // _SAMPLE_OF_VOCABULARY, 1)
    for token in range(0, shared, step):
        mine, other = model.token_text(token), draft.token_text(token)
        if mine != other:
            return f"token {token} is {other!r} instead of {mine!r}"
    return ""


def _slot(one: Sequence) -> int:
    assert one.slot is not None
    return one.slot.id
