"""Turns at the CPU: the decoding threads of a process compute in slices, and an idle one keeps no OpenMP threads.

libgomp's threads wait for each other by spinning, which takes a microsecond, as long as all teams of the process
together have no more threads than there are CPUs; otherwise they sleep, and a step of a small model waits in hundreds
of places. Each thread that computes has a team of its own, even while it is idle: a second loaded model made the first
three times slower (SmolLM2, two cores: 37 instead of 114 tokens/s). So only as many threads as there are cores
compute at once, in turns, and a thread ends its team (0.15 ms; the next step creates it again) before another's turn.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from llmlab.machine import cores

# A turn's length while others wait. Ending and creating a team takes 0.3 ms.
SLICE_S = 0.03
# enum omp_pause_resource_t
_SOFT = 1

_runtimes: dict[str, Callable[[int], int]] = {}
_member = threading.local()


class Turns:
    """Shares a number of cores between threads: whoever has computed for the shortest time goes first.

    Args:
        count: the number of cores.
    """

    def __init__(self, count: int) -> None:
        self._free = self._count = count
        self._changed = threading.Condition()
        # The turns' own time: that of the thread which computes. Threads that join start from it.
        self._clock = 0.0
        self.running: list[Turn] = []
        self.waiting: list[Turn] = []

    def join(self, threads: int) -> Turn:
        """A place for a thread that computes with `threads` threads; 0 for one that doesn't compute on the CPU."""
        _find_runtimes()
        return Turn(self, min(threads, self._count), self._changed)

    # -- called by Turn, with the lock held ------------------------------------------------------

    def queue(self, turn: Turn) -> None:
        """Add a thread that wants to compute. After a pause it is a slice ahead at most."""
        self._clock = max(self._clock, min((one.spent() for one in self.running), default=0.0))
        turn.used = max(turn.used, self._clock - SLICE_S)
        self.waiting.append(turn)
        self.dispatch()

    def stop(self, turn: Turn) -> None:
        """End a thread's turn."""
        turn.used, turn.held = turn.spent(), False
        self._clock = max(self._clock, turn.used)
        self.running.remove(turn)
        self._free += turn.threads

    def dispatch(self) -> None:
        """Start the waiting threads for which there are cores, in order."""
        if not self.waiting:
            return
        for turn in sorted(self.waiting, key=Turn.spent):
            if turn.threads > self._free:
                break
            self.waiting.remove(turn)
            self.running.append(turn)
            self._free -= turn.threads
            turn.started, turn.held = time.perf_counter(), True
        self._changed.notify_all()


class Turn:
    """One thread's place. Its methods are for that thread only.

    Attributes:
        held: it is this thread's turn.
        used: seconds of its turns so far, relative to the others'.
    """

    def __init__(self, turns: Turns, threads: int, changed: threading.Condition) -> None:
        self.held = False
        self.used = self.started = 0.0
        self.threads = threads
        self._turns = turns
        self._changed = changed

    @property
    def contended(self) -> bool:
        """Whether other threads are waiting for their turn."""
        return bool(self._turns.waiting) and self.threads > 0

    def take(self, timeout: float | None = None) -> bool:
        """Wait for this thread's turn; True at once if it has it. False on timeout: it keeps its place in the queue."""
        if self.held or not self.threads:
            return True
        _member.is_one = True
        with self._changed:
            if self not in self._turns.waiting:
                self._turns.queue(self)
            if self.held:
                return True
        end_team()
        with self._changed:
            return self._changed.wait_for(lambda: self.held, timeout)

    def offer(self) -> None:
        """Between two steps: end the turn if another thread waits and has computed less; `take` resumes."""
        if not self._turns.waiting or not self.held:
            return
        with self._changed:
            least = min((one.spent() for one in self._turns.waiting), default=float("inf"))
            if self.spent() - least < SLICE_S:
                return
        end_team()
        with self._changed:
            self._turns.stop(self)
            self._turns.queue(self)

    def share(self) -> None:
        """`offer`, and wait for the next turn: within a long computation."""
        self.offer()
        self.take()

    def release(self) -> None:
        """End the turn, but keep the team if no other thread waits: the next step is about to follow."""
        if self.contended:
            end_team()
        self._leave()

    def give(self) -> None:
        """Nothing to compute: end the turn and the team."""
        if self.threads:
            end_team()
            self._leave()

    def spent(self) -> float:
        """Seconds of its turns, including the current one."""
        return self.used + (time.perf_counter() - self.started if self.held else 0.0)

    def _leave(self) -> None:
        with self._changed:
            if self.held:
                self._turns.stop(self)
            elif self in self._turns.waiting:
                self._turns.waiting.remove(self)
            self._turns.dispatch()
        _member.is_one = False


def on_member() -> bool:
    """Whether the calling thread has or waits for a turn. A finalizer on it must not wait for another such thread.

    The garbage collector can run a finalizer while this thread holds the lock that the other one needs to end.
    """
    return getattr(_member, "is_one", False)


def end_team() -> None:
    """End the calling thread's OpenMP team, outside of a parallel region. A no-op with other runtimes than libgomp."""
    for pause in tuple(_runtimes.values()):  # a load on another thread finds more meanwhile
        pause(_SOFT)


def _find_runtimes() -> None:
    """Find the loaded copies of libgomp. LLVM's runtime pauses all threads of a process, so it is left alone."""
    if sys.platform != "linux":
        return
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for path in set(re.findall(r"\s(/\S*/libgomp[^/\s]*\.so[^/\s]*)", text)) - set(_runtimes):
        try:
            pause = ctypes.CDLL(path).omp_pause_resource_all
        except (OSError, AttributeError):  # older than OpenMP 5.0
            continue
        pause.argtypes, pause.restype = [ctypes.c_int], ctypes.c_int
        _runtimes[path] = pause


CPU = Turns(cores.allowed())
"""This process's turns at the CPU."""
