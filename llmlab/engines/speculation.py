"""What a draft brings, measured while it works: tokens a step, and the speed with it by the speed without it."""

from __future__ import annotations

import statistics
from collections import deque

from llmlab.types import Speculation

# Every so many steps a few go without the draft, more often at first: the measure of what it's worth on this machine.
_PERIOD, _FIRST_PERIOD, _FIRST = 64, 16, 64
_RUN = 4
_ENOUGH = 2
_KEEP = 16
# A step this many times as long as usual was held up by something else on the machine: it counts as so long.
_HELD_UP = 4.0


class SpeculationMeter:
    """Counts an engine's decode steps with and without drafted tokens. For the loop's thread; reading is safe anywhere.

    The speed-up is the tokens that a step with the draft gives a sequence, by how much longer it takes (all that the
    draft computes included). Steps of both kinds come from the same stretch of work, a few without the draft and then
    many with it, so both saw the same prompts, batch sizes and neighbours on the machine. The first step of its kind
    doesn't count: llama.cpp sets its graph up anew when the number of tokens changes.

    Args:
        draft: the draft model's name, or "ngram".
    """

    def __init__(self, draft: str) -> None:
        self.draft = draft
        self.total = Speculation(draft, 0, 0, 0)
        self._count = 0
        self._drafted = False
        self._plain: list[float] = []
        self._seconds: list[float] = []
        self._gained: list[float] = []
        # A stretch: seconds of its plain steps; seconds of its drafted steps, and the tokens that they gave.
        self._stretches: deque[tuple[list[float], list[float], float]] = deque(maxlen=_KEEP)
        self._warm = False

    def plain_due(self) -> bool:
        """Whether the next step is to go without the draft."""
        return self._count % (_PERIOD if self._count >= _FIRST else _FIRST_PERIOD) < _RUN

    def step(self, seconds: float, tokens: float, *, drafted: bool) -> None:
        """Take note of a step that decoded and computed no prompt.

        Args:
            seconds: how long it took, drafting included.
            tokens: tokens it gave, by sequence (their mean).
            drafted: whether the draft was asked.
        """
        self._count += 1
        if drafted != self._drafted:
            self._drafted = drafted
            if not drafted:
                self._close()
            return
        if drafted:
            self._seconds.append(seconds)
            self._gained.append(tokens)
        else:
            self._plain.append(seconds)

    def _close(self) -> None:
        """A stretch has ended; the first one pays for what is set up once."""
        if self._plain and self._seconds:
            if self._warm:
                self._stretches.append((self._plain, self._seconds, sum(self._gained)))
            self._warm = True
        self._plain, self._seconds, self._gained = [], [], []

    def count(self, drafted: int, accepted: int, steps: int) -> Speculation:
        """Add a sequence's figures to the total; gives them with the speed-up so far."""
        one = Speculation(self.draft, drafted, accepted, steps, self.speedup)
        self.total += one
        return one

    @property
    def speedup(self) -> float | None:
        """Decode speed with the draft by the speed without; None until enough was seen."""
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
    """The mean, with what was held up counted as `_HELD_UP` times the median."""
    most = _HELD_UP * statistics.median(seconds)
    return statistics.fmean(min(one, most) for one in seconds)
