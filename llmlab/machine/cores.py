"""The CPU cores that this process may use: affinity, a container's quota, and what other processes leave of them."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_STAT = Path("/proc/stat")


def allowed() -> int:
    """Logical CPUs in this process's affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable() -> int:
    """Cores worth a thread each: physical ones (hyperthreads slow matrix products down), within affinity and quota.

    With a quota of 1.5 CPUs, two threads would use it up after three quarters of each period and both sleep.
    """
    import psutil

    found = min(psutil.cpu_count(logical=False) or allowed(), allowed())
    limit = quota()
    return max(1, found if limit is None else min(found, math.floor(limit + 0.1)))


def quota(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The tightest CPU quota of this process's cgroups, in CPUs; None without one.

    Version 2 has cpu.max ("quota period" in microseconds, or "max") at each level; version 1 two files in the
    hierarchy of the cpu controller.
    """
    try:
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found: list[float] = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            bases = [root]
        elif "cpu" in controllers.split(","):
            bases = [root / "cpu", root / "cpu,cpuacct"]
        else:
            continue
        for base in bases:
            folder = base / path.lstrip("/")
            for level in (folder, *folder.parents):
                found += _quota_of(level)
                if level == base:
                    break
    return min(found, default=None)


def _quota_of(folder: Path) -> list[float]:
    try:
        limit, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            limit = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return []
    try:
        return [int(limit) / int(period)] if int(limit) > 0 and int(period) > 0 else []
    except ValueError:  # "max"
        return []


class Others:
    """How many of this process's cores other processes take, from the counters in /proc/stat."""

    def __init__(self) -> None:
        self._cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset()
        self._ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self._last = self._read()

    def busy(self) -> float | None:
        """Cores taken by others, on average since the last call; None if that isn't known (not Linux, too short)."""
        now = self._read()
        if now is None or self._last is None or now[0] - self._last[0] < 8 / self._ticks:
            return None
        took = now[0] - self._last[0]
        # Counters are in ticks, so over a short time the difference can be slightly negative.
        others = max((now[1] - self._last[1] - (now[2] - self._last[2])) / took, 0.0)
        self._last = now
        return others

    def runnable(self) -> int:
        """Tasks of the system that run or could run now, besides the caller."""
        try:
            text = _STAT.read_text(encoding="ascii")
        except OSError:
            return 0
        at = text.find("procs_running ")
        return max(int(text[at + 14 : text.find("\n", at)]) - 1, 0) if at >= 0 else 0

    def _read(self) -> tuple[float, float, float] | None:
        """Now, seconds that this process's CPUs have been busy or stolen, and the CPU seconds of this process."""
        try:
            lines = _STAT.read_text(encoding="ascii").split("\n")
        except OSError:
            return None
        now, own, total = time.perf_counter(), time.process_time(), 0
        for line in lines[1:]:
            if not line.startswith("cpu"):
                break
            name, *fields = line.split()
            if int(name[3:]) in self._cpus:
                # user nice system idle iowait irq softirq steal: all but the idle times
                total += sum(map(int, fields[:8])) - int(fields[3]) - int(fields[4])
        return now, total / self._ticks, own
