"""The free memory: of GPUs from NVML, of RAM from psutil, reduced to a container's limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmlab.machine import nvml

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Device:
    """The memory in which a model is loaded.

    Attributes:
        name: "CPU", or the GPU's name.
        free: bytes available now.
        total: total bytes.
        count: number of devices counted together.
    """

    name: str
    free: int
    total: int
    count: int = 1


def cpu() -> Device:
    """The RAM available to this process: the system's available memory, or a container's limit if lower."""
    import psutil

    system = psutil.virtual_memory()
    free, total = int(system.available), int(system.total)
    limit = _cgroup_limit()
    if limit is not None and limit[1] < total:
        free, total = min(free, limit[0]), limit[1]
    return Device("CPU", free, total)


def gpus() -> tuple[Device, ...]:
    """The NVIDIA GPUs that this process may use; none without NVML or a driver.

    One whose memory NVML doesn't report shares the machine's memory (Jetson, GB10), so it has what the CPU has.
    """
    return tuple(
        replace(cpu(), name=gpu.name)
        if gpu.free is None or gpu.total is None
        else Device(gpu.name, gpu.free, gpu.total)
        for gpu in nvml.visible()
    )


def device(*, gpu: bool | None = None, count: int = 1, index: int | None = None, even: bool = False) -> Device:
    """The device that a model will be loaded on.

    Args:
        gpu: whether to use the GPU; None uses it if there is one.
        count: GPUs to combine.
        index: the GPU to use, as CUDA counts them for this process; None: the first ones.
        even: the model is split into equal parts (tensor parallel), so the GPU with the least free memory decides.
    """
    found = gpus() if gpu is not False else ()
    if not found:
        return cpu()
    return combine(found[index : index + 1] if index is not None else found[: max(count, 1)], even=even)


def combine(found: Sequence[Device], *, even: bool) -> Device:
    """Several GPUs as one device; see `device`."""
    count = sum(one.count for one in found)
    free = min(one.free // one.count for one in found) * count if even else sum(one.free for one in found)
    return Device(found[0].name, free, sum(one.total for one in found), count)


def _cgroup_limit(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> tuple[int, int] | None:
    """(free, limit) of the tightest memory limit of this process's cgroups, or None without one.

    Version 2 has memory.max and memory.current at each level; version 1 has a separate memory hierarchy. Reclaimable
    page cache (inactive_file) counts as free, as in psutil's "available".
    """
    try:
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found: list[tuple[int, int]] = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / "memory"
        else:
            continue
        folder = base / path.lstrip("/")
        for level in (folder, *folder.parents):
            one = _level(level, *names)
            if one is not None:
                found.append(one)
            if level == base:
                break
    return min(found) if found else None


def _level(folder: Path, limit_name: str, used_name: str, cached_name: str) -> tuple[int, int] | None:
    try:
        limit = int((folder / limit_name).read_text())
        used = int((folder / used_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    if limit >= 2**60:  # version 1's value for "no limit"
        return None
    return max(limit - used + int(stat.get(cached_name, 0)), 0), limit
