"""Measures speculative decoding as it runs: acceptance, tokens per step, and the speed-up over plain decoding."""

from __future__ import annotations

import statistics
from collections import deque

from llmlab.types import Speculation

# If fewer than `_RUN` - 1 steps of a period had no drafted tokens, the next begins with `_RUN` that may not draft. The
# periods are shorter at first.
_PERIOD, _FIRST_PERIOD, _FIRST = 64, 16, 64
_RUN = 4
_ENOUGH = 2
_KEEP = 16
# A step longer than this many medians was delayed by something else on the machine: its time is capped there.
_MAX_MEDIANS = 4.0


class SpeculationMeter:
    """Counts an engine's decode steps with and without drafted tokens. Written by the loop's thread, read by any.

    The speed-up is the tokens per sequence of a step that may draft, divided by how much longer such a step takes than
    one without drafted tokens (including drafting). Both come from the same stretch of work, so prompts, batch sizes
    and machine load are the same for both. A step without drafted tokens right after one with them is excluded, and so
    is the first that may draft again: llama.cpp rebuilds its graph when the number of tokens changes.

    Args:
        draft: the draft model's name, or "ngram".
    """

    def __init__(self, draft: str) -> None:
        self.draft = draft
        self.total = Speculation(draft, 0, 0, 0)
        self._count = self._forced = 0
        # Of the last step: whether it was without drafted tokens, and whether it might draft.
        self._single = self._drafted = False
        self._plain: list[float] = []
        self._seconds: list[float] = []
        self._gained: list[float] = []
        # A stretch: seconds of its plain steps; seconds of the steps that might draft, and the tokens of these.
        self._stretches: deque[tuple[list[float], list[float], float]] = deque(maxlen=_KEEP)
        self._warm = False

    def plain_due(self) -> bool:
        """Whether the next step should run without the draft."""
        return self._forced > 0

    def step(self, seconds: float, tokens: float, *, drafted: bool, single: bool = False) -> None:
        """Record a step that only decoded (no prompt tokens).

        Args:
            seconds: how long it took, drafting included.
            tokens: mean tokens per sequence that it produced.
            drafted: whether it might draft.
            single: it might, but nothing was drafted.
        """
        single = single or not drafted
        if single and self._single:
            self._plain.append(seconds)
        if drafted and self._drafted:
            self._seconds.append(seconds)
            self._gained.append(tokens)
        self._single, self._drafted = single, drafted
        if not drafted:
            self._forced -= 1
        self._count += 1
        if self._count % (_PERIOD if self._count >= _FIRST else _FIRST_PERIOD) == 0:
            self._end_period()

    def _end_period(self) -> None:
        """Keep what was measured, unless one kind of step is missing. The first is excluded: it has one-time setup."""
        self._forced = 0 if len(self._plain) >= _RUN - 1 else _RUN
        if self._warm and not (self._plain and self._seconds):
            return
        if self._warm:
            self._stretches.append((self._plain, self._seconds, sum(self._gained)))
        self._warm = True
        self._plain, self._seconds, self._gained = [], [], []

    def count(self, drafted: int, accepted: int, steps: int) -> Speculation:
        """Add a sequence's counts to the total. Returns them with the speed-up so far."""
        one = Speculation(self.draft, drafted, accepted, steps, self.speedup)
        self.total += one
        return one

    @property
    def speedup(self) -> float | None:
        """Decode speed with the draft divided by the speed without; None until there are enough steps."""
        stretches = list(self._stretches)
        if len(stretches) < _ENOUGH:
            return None
        plain = _mean([seconds for one in stretches for seconds in one[0]])
        drafted = [seconds for one in stretches for seconds in one[1]]
        return plain * sum(one[2] for one in stretches) / len(drafted) / _mean(drafted)

    def describe(self) -> str:
        """One line for `%llm ls -v`."""
        total = Speculation(self.draft, self.total.drafted, self.total.accepted, self.total.steps, self.speedup)
        return str(total).removeprefix(f"draft {self.draft}").lstrip(", ") or "nothing drafted yet"


def _mean(seconds: list[float]) -> float:
    """The mean, with each value capped at `_MAX_MEDIANS` times the median."""
    most = _MAX_MEDIANS * statistics.median(seconds)
    return statistics.fmean(min(one, most) for one in seconds)
