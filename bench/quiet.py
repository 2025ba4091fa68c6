"""Whether the machine was quiet during a measurement: what /proc/stat says, and a fixed piece of work before and after.

    python bench/quiet.py

Other processes, a hypervisor that gives the cores away (steal) and a clock that changes all make two measurements
incomparable. `Watch` notices them; `Conditions.problem` says it in a few words.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# Most of these that a measurement may see: a share of the cores, and cores.
STEAL, OTHERS = 0.02, 0.08
# Other tasks that could run, on average, just before the start.
WAITING = 0.3
# Most difference in the speed of the same work before and after. It changes by up to a fifth within seconds on a virtual
# machine where nothing else runs; what is compared must be measured closer together.
DRIFT = 0.3
_SETTLE_S = 3.0
_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Conditions:
    """What else the machine did during a measurement.

    Attributes:
        steal: share of the cores' time that the hypervisor gave to others.
        others: cores that processes other than this one and its children took.
        waiting: other tasks that could run just before the start, on average.
        before, after: speed of a fixed piece of work, per second.
    """

    steal: float
    others: float
    waiting: float
    before: float
    after: float

    @property
    def problem(self) -> str:
        """Why the measurement doesn't count; "" if the machine was quiet."""
        found = []
        if self.steal > STEAL:
            found.append(f"steal {100 * self.steal:.0f} %")
        if self.others > OTHERS:
            found.append(f"other processes took {self.others:.2f} cores")
        if self.waiting > WAITING:
            found.append(f"{self.waiting:.1f} other tasks were running at the start")
        drift = max(self.before, self.after) / max(min(self.before, self.after), 1e-9) - 1
        if drift > DRIFT:
            found.append(f"the machine's speed changed by {100 * drift:.0f} %")
        return ", ".join(found)


class Watch:
    """A context manager around a measurement in this process and in child processes that end within it.

    Attributes:
        conditions: set at the end.
    """

    conditions: Conditions

    def __enter__(self) -> Self:
        self._waiting = _waiting()
        _settle()
        self._before = _work()
        self._start = _counters()
        return self

    def __exit__(self, *_: object) -> None:
        end = _counters()
        wall, busy, steal, own = (b - a for a, b in zip(self._start, end, strict=True))
        cores = os.cpu_count() or 1
        self.conditions = Conditions(
            steal=max(steal, 0.0) / wall / cores,
            others=max(busy - own, 0.0) / wall,
            waiting=self._waiting,
            before=self._before,
            after=_work(),
        )


def _counters() -> tuple[float, float, float, float]:
    """Seconds: of the clock, that all cores were busy (without steal), stolen, and the CPU time of this process and its children."""
    fields = [int(one) for one in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return time.perf_counter(), (user + nice + system + irq + softirq) / tick, steal / tick, own


def _waiting() -> float:
    """How many other tasks could run, on average over half a second."""
    seen = []
    for _ in range(25):
        time.sleep(0.02)
        text = _STAT.read_text(encoding="ascii")
        at = text.index("procs_running ") + 14
        seen.append(max(int(text[at : text.index("\n", at)]) - 1, 0))
    return statistics.fmean(seen)


def _settle() -> None:
    """Keep all cores busy until the higher clock that follows an idle time has ended."""
    block, until = bytes(2**22), time.perf_counter() + _SETTLE_S

    def work() -> None:
        while time.perf_counter() < until:
            hashlib.sha256(block).digest()  # without the GIL

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work() -> float:
    """Speed of hashing and of copying memory: the geometric mean of the medians of some short goes."""
    source = bytes(16 * 2**20)
    target = bytearray(len(source))

    def copy() -> Any:
        target[:] = source

    speeds = []
    for work in (lambda: hashlib.sha256(source[: 2**21]).digest(), copy):
        seconds = []
        for _ in range(25):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        speeds.append(1 / statistics.median(seconds))
    return statistics.geometric_mean(speeds)


def main() -> None:
    """Print the conditions of two idle seconds."""
    with Watch() as watch:
        time.sleep(2)
    print(watch.conditions, watch.conditions.problem or "quiet", sep="\n")


if __name__ == "__main__":
    main()
