"""What NVML reports about the GPUs that this process may use, and about the memory of its children."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or an instance of one that is partitioned (MIG).

    Attributes:
        name: its name.
        uuid: what `CUDA_VISIBLE_DEVICES` takes.
        free, total: bytes; None if NVML doesn't report them: a GPU that shares the machine's memory, or an instance
            without permission.
    """

    name: str
    uuid: str
    free: int | None
    total: int | None


def visible() -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows to this process, in its order (`CUDA_VISIBLE_DEVICES`); none without a driver."""
    with _session() as nvml:
        if nvml is None:
            return ()
        every = list(_every(nvml))
        wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
        return tuple(_describe(nvml, handle) for handle in (every if wanted is None else _chosen(nvml, every, wanted)))


def used_by(pids: set[int]) -> int | None:
    """Bytes of GPU memory that processes use; None if NVML doesn't report it (no driver, containers, MIG, WSL)."""
    with _session() as nvml:
        if nvml is None:
            return None
        found = []
        for handle in _every(nvml):
            for query in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
                with contextlib.suppress(nvml.NVMLError, AttributeError):
                    found += [one.usedGpuMemory for one in getattr(nvml, query)(handle) if one.pid in pids]
        # The same process may be listed by both queries; llmlab's use no graphics.
        return None if not found or any(one is None for one in found) else sum(map(int, found))


def driver() -> tuple[str, tuple[int, int]] | None:
    """The driver's version, and the newest CUDA that it supports; None without a driver."""
    with _session() as nvml:
        if nvml is None:
            return None
        number = int(nvml.nvmlSystemGetCudaDriverVersion())
        return str(nvml.nvmlSystemGetDriverVersion()), (number // 1000, number % 1000 // 10)


@contextlib.contextmanager
def _session() -> Iterator[Any]:
    """The `pynvml` module, initialized; None without the package, a driver or permission."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - also raised as an OSError by a broken driver
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _every(nvml: Any) -> Iterator[Any]:
    """Handles of all GPUs; of the instances of a partitioned one, which CUDA shows in its place."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:  # a GPU that has fallen off the bus, or without permission
            continue
        instances = []
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            if nvml.nvmlDeviceGetMigMode(handle)[0]:
                for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                    with contextlib.suppress(nvml.NVMLError):
                        instances.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        yield from instances or [handle]


def _chosen(nvml: Any, every: Sequence[Any], wanted: str) -> list[Any]:
    """Those that `CUDA_VISIBLE_DEVICES` lists: by number or by (the start of) a UUID, up to the first invalid one."""
    found: list[Any] = []
    for one in wanted.split(","):
        name = one.strip()
        if name.isdecimal():
            match = every[int(name)] if int(name) < len(every) else None
        else:
            match = next((handle for handle in every if name and _uuid(nvml, handle).startswith(name)), None)
        if match is None:
            break
        found.append(match)
    return found


def _uuid(nvml: Any, handle: Any) -> str:
    try:
        found = nvml.nvmlDeviceGetUUID(handle)
    except nvml.NVMLError:
        return ""
    return found.decode() if isinstance(found, bytes) else str(found)


def _describe(nvml: Any, handle: Any) -> Gpu:
    free = total = None
    with contextlib.suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        free, total = int(memory.free), int(memory.total)
    try:
        name = nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError:
        name = "NVIDIA GPU"
    return Gpu(name.decode() if isinstance(name, bytes) else str(name), _uuid(nvml, handle), free, total)
