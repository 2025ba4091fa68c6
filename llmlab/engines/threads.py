"""Chooses the number of decoding threads on a CPU while running: fewer when other processes take cores.

The threads of a step wait for each other hundreds of times, so a single one that has to share its core slows all
down (SmolLM2, two cores, both taken by other processes: two threads 2 to 30 tokens/s, one thread 50).
"""

from __future__ import annotations

import time

from llmlab.machine import cores

# How often the load is measured; sooner after a slow step, but /proc/stat counts in ticks of 10 ms.
_WINDOW_S = 0.25
_SHORT_S = 0.08
# A step this many times slower than the fastest of its kind is slow.
_SLOW = 2.5
# Threads that share a core lose more than the share: the others wait for a time slice.
_PENALTY = 0.8
# More threads must promise this much more speed.
_GAIN = 1.1
_FIRST_HOLD_S, _LONGEST_HOLD_S = 1.0, 30.0


class Threads:
    """The number of threads for the next step. For the loop's thread only, except for reading.

    Args:
        most: the number on an idle machine.
        fixed: the user chose it: never change it.

    Attributes:
        now: the number for the next step.
        others: cores that other processes took, as last measured.
    """

    def __init__(self, most: int, *, fixed: bool, load: cores.Others | None = None, count: int = 0) -> None:
        self.most = self.now = most
        self.others = 0.0
        self._fixed = fixed or most == 1
        self._cores = count or cores.allowed()
        self._load = load or cores.Others()
        self._due = 0.0
        self._steps, self._seconds, self._tokens = 0, 0.0, 0
        # Seconds per step: the fastest by (threads, tokens), and the last by the same.
        self._best: dict[tuple[int, int], float] = {}
        self._last: dict[tuple[int, int], float] = {}
        self._hold_until, self._hold_s = 0.0, _FIRST_HOLD_S
        self._raised = False

    def begin(self) -> None:
        """Called before the first step after a pause: what others took during the pause is the best guess."""
        if self._fixed:
            return
        self._steps, self._seconds = 0, 0.0
        self._follow_load(time.perf_counter())

    def step(self, seconds: float, tokens: int) -> None:
        """Record a step, and choose the number for the next one from time to time.

        Args:
            seconds: how long it took.
            tokens: how many tokens it computed.
        """
        if self._fixed:
            return
        if tokens != self._tokens:
            self._steps, self._seconds, self._tokens = 0, 0.0, tokens
        self._steps += 1
        self._seconds += seconds
        now = time.perf_counter()
        key = self.now, tokens
        best = self._best.get(key, seconds)
        if seconds < best or key not in self._best:
            self._best[key] = best = seconds
        if now < self._due and (seconds < _SLOW * best or now < self._due - _WINDOW_S + _SHORT_S):
            return
        mean = self._seconds / self._steps
        self._last[key] = mean
        # A longer context makes steps slower, so the fastest one is forgotten slowly.
        self._best[key] = best * 1.01
        self._steps, self._seconds = 0, 0.0
        raised, self._raised = self._raised, False
        if raised and mean > self._last.get((self._fewer(), tokens), mean):
            self._lower(now)  # more threads turned out to be slower
        elif self.now > 1 and mean > _SLOW * best and (self._fewer(), tokens) not in self._last:
            self._lower(now)  # something takes cores that the counters don't show, such as a thread of this process
        else:
            if raised:
                self._hold_s = _FIRST_HOLD_S
            self._follow_load(now)
        if len(self._best) > 64:
            self._best.clear()
            self._last.clear()

    def describe(self) -> str:
        """One line for `%llm ls -v`."""
        if self._fixed or self.now == self.most:
            return str(self.now)
        return f"{self.now} of {self.most}, because other processes take {self.others:.1f} of {self._cores} cores"

    def _follow_load(self, now: float) -> None:
        self._due = now + _WINDOW_S
        others = self._load.busy()
        if others is None:
            return
        self.others = others
        best = best_count(self.most, self._cores - others)
        if best < self.now:
            self.now = best
        elif now >= self._hold_until and _speed(best, self._cores - others) > _GAIN * _speed(
            self.now, self._cores - others
        ):
            self.now, self._raised = best, True

    def _fewer(self) -> int:
        return max((self.now + 1) // 2, 1) if self.now > 1 else 1

    def _lower(self, now: float) -> None:
        self.now = self._fewer()
        self._hold_until = now + self._hold_s
        self._hold_s = min(2 * self._hold_s, _LONGEST_HOLD_S)
        self._due = now + _WINDOW_S


def best_count(most: int, free: float) -> int:
    """The number of threads with the highest expected speed.

    Args:
        most: the largest number.
        free: cores that other processes leave.
    """
    return max(range(1, most + 1), key=lambda count: (round(_speed(count, free), 6), -count))


def _speed(count: int, free: float) -> float:
    """Expected speed of a step, in cores: all threads run at the pace of the one with the least of its core."""
    if count <= free or count == 1:
        return float(count)
    return count * _PENALTY * max(min(free - (count - 1), 1.0), 0.0)
