"""The memory that this process holds, with its children: now, and at its peak."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from pathlib import Path

from llmlab.machine import cores, memory, nvml

_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def held() -> int:
    """Bytes in RAM of this process and its children; a mapped file counts as far as it has been read."""
    import psutil

    process = psutil.Process()
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += int(child.memory_info().rss)
    return total


def held_on_gpu() -> int:
    """Bytes of GPU memory of this process and its children; 0 without a GPU, or where the driver doesn't say."""
    import psutil

    if not nvml.visible():
        return 0
    process = psutil.Process()
    return nvml.used_by({process.pid, *(child.pid for child in process.children(recursive=True))}) or 0


def peak() -> int:
    """The most bytes in RAM of this process alone since `restart_peak`; 0 where the system doesn't count them."""
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def restart_peak() -> None:
    """Count the peak from now on (Linux: man 5 proc, clear_refs)."""
    with contextlib.suppress(OSError):
        _PEAK.write_text("5")


def machine_id() -> str:
    """A short name of this kind of machine: its processor, cores, memory in GB and GPUs. The same after a restart."""
    parts = [platform.machine(), platform.system(), str(cores.allowed()), f"{memory.cpu().total / 1e9:.0f} GB"]
    parts += [device.name for device in memory.gpus()]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]
