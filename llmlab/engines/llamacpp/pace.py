"""How many tokens to draft per step: as many as pay, from the acceptance so far and the cost of a longer step.

The choice depends on tokens and on costs that are fixed at the load, never on the time that a step took, so that a run
can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# The acceptance that is assumed counts as so many trials, and a trial for this much after each further one.
_PRIOR_TRIALS, _KEPT = 8, 0.98
# A draft must promise this much more speed: the costs are those of a machine and a context that vary.
_GAIN = 1.05


@dataclass(frozen=True, slots=True)
class Costs:
    """Durations relative to a step of a single token.

    Attributes:
        steps: pairs of a number of tokens and the duration of a step with so many, in ascending order, from (1, 1.0).
        draft: duration of drafting one token.
    """

    steps: tuple[tuple[int, float], ...]
    draft: float = 0.0

    def step(self, tokens: int) -> float:
        """Duration of a step, interpolated; beyond the longest that was measured, proportional to the tokens."""
        before, cost_before = self.steps[0]
        for size, cost in self.steps:
            if tokens <= size:
                share = (tokens - before) / (size - before) if size > before else 1.0
                return cost_before + share * (cost - cost_before)
            before, cost_before = size, cost
        return cost_before * tokens / before

    def __str__(self) -> str:
        """Example: "4 tokens cost 2.8 single steps, 8 4.7 and 16 6.9"."""
        known = {size: cost for size, cost in self.steps if size in (4, 8, 16)}
        first, *others = [f"{size} tokens cost {cost:.1f} single steps" for size, cost in known.items()] or [""]
        return ", ".join([first, *(one.replace(" tokens cost", "").removesuffix(" single steps") for one in others)])


class Acceptance:
    """The probability that a drafted token is accepted if those before it were.

    Args:
        prior: its value before the first trial.
    """

    __slots__ = ("_accepted", "_trials")

    def __init__(self, prior: float) -> None:
        self._trials = float(_PRIOR_TRIALS)
        self._accepted = prior * self._trials

    @property
    def value(self) -> float:
        """The probability."""
        return self._accepted / self._trials

    def learn(self, drafted: int, accepted: int) -> None:
        """Add the result of a draft: each accepted token is a trial, and so is the first rejected one."""
        trials = min(accepted + 1, drafted)
        kept = _KEPT**trials
        self._accepted = self._accepted * kept + accepted
        self._trials = self._trials * kept + trials


def length(chances: Iterable[tuple[float, int]], others: int, most: int, costs: Costs) -> int:
    """The number of tokens to draft for each sequence that maximizes the tokens per second; 0: don't draft.

    Args:
        chances: acceptance and room (most drafted tokens) of each sequence that can be drafted for.
        others: further sequences in the step, with one token each.
        most: the largest number.
        costs: of steps and of drafting.
    """
    sequences = list(chances)
    running = tokens = len(sequences) + others
    best = _GAIN * running / costs.step(running)
    chosen = 0
    gained = float(running)
    powers = [1.0] * len(sequences)
    for number in range(1, most + 1):
        for place, (chance, room) in enumerate(sequences):
            if number <= room:
                powers[place] *= chance
                gained += powers[place]
                tokens += 1
        speed = gained / (costs.step(tokens) + number * costs.draft)
        if speed > best:
            best, chosen = speed, number
    return chosen
