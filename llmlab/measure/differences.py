"""Where two answers to one request part, and whether the number format explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmlab.types import Completion, TokenLogprob

Kind = Literal["same", "rounding", "beyond", "unknown"]

LARGEST_LOGIT = 32.0
"""Logits of language models are mostly below this: the step between numbers up to it is taken as the resolution."""
_BITS = {"bf16": 8, "f16": 11, "f32": 24}  # bits of the significand, the hidden one included


def resolution(number_format: str) -> float:
    """The step between neighbouring logits from 16 to 32 in a number format: 0.125 for bf16.

    Args:
        number_format: bf16, f16 or f32.
    """
    return float(2.0 ** (math.log2(LARGEST_LOGIT) - _BITS[number_format]))


@dataclass(frozen=True, slots=True)
class Difference:
    """How two answers to one request differ.

    Attributes:
        kind: same; rounding: the number format explains the first differing token; beyond: it doesn't, which is a
            fault; unknown: a token isn't among the likeliest that were recorded.
        position: the first differing token, from 0; None if the answers are the same.
        tokens: the token that each answer has there ("" where it has ended).
        gap: how far apart the two tokens are, in nats: the larger of the two runs' gaps.
        shift: how far the runs' gaps differ from each other, in nats.
        step: the resolution of the coarser number format.
    """

    kind: Kind
    position: int | None = None
    tokens: tuple[str, str] = ("", "")
    gap: float | None = None
    shift: float | None = None
    step: float = 0.0

    def __str__(self) -> str:
        if self.kind == "same":
            return "the same"
        where = f"token {self.position}: {self.tokens[0]!r} against {self.tokens[1]!r}"
        if self.gap is None:
            return f"{where}; the gap isn't known"
        if self.kind == "rounding":
            return f"{where}, {self.gap:.3f} nats apart: within rounding (logits step by {self.step:g})"
        return f"{where}, {self.gap:.3f} nats apart: beyond rounding (logits step by {self.step:g}), a fault"


def classify(one: Completion, other: Completion, *, step: float) -> Difference:
    """Classify the first difference between two greedy answers to one prompt.

    Both need log probabilities (`logprobs=5`). Each of the two logits may be off by one step, so a choice between
    tokens that are at most two steps apart in both runs is rounding.

    Args:
        one: an answer.
        other: the other run's.
        step: the resolution of the coarser number format (`resolution`).

    Returns:
        The difference.
    """
    first, second = one.token_ids, other.token_ids
    pairs = enumerate(zip(first, second, strict=False))
    position = next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
    if position == len(first) == len(second):
        return Difference("same", step=step)
    tokens = (_at(one, position), _at(other, position))
    names = tuple(token.token if token is not None else "" for token in tokens)
    if tokens[0] is None or tokens[1] is None:
        return Difference("unknown", position, (names[0], names[1]), step=step)
    gaps = [_gap(tokens[0], tokens[1].token_id), _gap(tokens[1], tokens[0].token_id)]
    known = [gap for gap in gaps if gap is not None]
    if not known:
        return Difference("unknown", position, (names[0], names[1]), step=step)
    # The gaps have opposite signs: each run prefers its own token by that much.
    shift = sum(known) if len(known) == 2 else None
    kind: Kind = "rounding" if max(known) <= 2 * step else "beyond"
    return Difference(kind, position, (names[0], names[1]), max(known), shift, step)


def _at(done: Completion, position: int) -> TokenLogprob | None:
    logprobs: Sequence[TokenLogprob] = done.logprobs or ()
    return logprobs[position] if position < len(logprobs) else None


def _gap(token: TokenLogprob, rival: int) -> float | None:
    """By how much a run prefers its token to another one, in nats; None if that isn't among its likeliest."""
    found = next((logprob for other, _, logprob in token.top if other == rival), None)
    return token.logprob - found if found is not None else None
