"""How many tokens to draft per step: as many as pay, from the acceptance so far and the cost of a longer step.

The choice depends on tokens only, never on times, so that a run can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Iterable

# A step's duration relative to one of a single token, on a CPU, where it is bound by arithmetic: llama.cpp's kernels
# compute four tokens at once, and the rest one by one. Measured for 4 and 8 tokens: nano in F16 1.44 and 2.5, SmolLM2
# in Q4_1 1.9 and 3.1, a Llama of 187 M in Q4_K_M 1.4 and 2.4.
_FEW, _BASE, _FOUR, _ONE = 0.35, 0.55, 1.1, 0.33
# On a GPU it is bound by reading the weights.
_ON_GPU = 0.02
# Share of a new trial in the acceptance, and how often to try again a draft that doesn't pay.
_NEW = 0.1
RETRY = 16


class Acceptance:
    """The probability that a drafted token is accepted if those before it were.

    Args:
        prior: its value before the first trial.
    """

    __slots__ = ("value",)

    def __init__(self, prior: float) -> None:
        self.value = prior

    def learn(self, drafted: int, accepted: int) -> None:
        """Add the result of a draft."""
        for _ in range(accepted):
            self.value += _NEW * (1 - self.value)
        if accepted < drafted:
            self.value -= _NEW * self.value


def step_cost(tokens: int, *, on_gpu: bool = False) -> float:
    """Duration of a step relative to one of a single token."""
    if on_gpu:
        return 1 + _ON_GPU * (tokens - 1)
    if tokens < 4:
        return 1 + _FEW * (tokens - 1)
    fours, rest = divmod(tokens, 4)
    return _BASE + _FOUR * fours + _ONE * rest


def length(chances: Iterable[tuple[float, int]], others: int, most: int, cost: float, *, on_gpu: bool = False) -> int:
    """The number of tokens to draft for each sequence that maximizes the tokens per second; 0: don't draft.

    Args:
        chances: acceptance and room (most drafted tokens) of each sequence that can be drafted for.
        others: further sequences in the step, with one token each.
        most: the largest number.
        cost: duration of drafting one token for all of them, relative to a step of a single token.
    """
    sequences = list(chances)
    count = len(sequences)
    best = (count + others) / step_cost(count + others, on_gpu=on_gpu)
    chosen = 0
    for number in range(1, most + 1):
        tokens = sum(min(number, room) for _, room in sequences)
        gained = sum(_expected(chance, min(number, room)) for chance, room in sequences)
        step = step_cost(count + others + tokens, on_gpu=on_gpu) + number * cost
        speed = (count + others + gained) / step
        if speed > best * 1.0001:
            best, chosen = speed, number
    return chosen


def _expected(chance: float, number: int) -> float:
    """Tokens that are accepted on average, of so many."""
    return sum(chance**place for place in range(1, number + 1))
