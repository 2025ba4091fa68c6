"""The doctor's look at llama.cpp's installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llmlab import _imports
from llmlab.engines.base import Finding
from llmlab.engines.llamacpp import amx, build
from llmlab.machine import hardware

# The release that llmlab is tested with; others may work, with a warning.
TESTED = "0.3.36"


def examine(version_of: Callable[[str], str | None]) -> Iterator[Finding]:
    """Its version and build, or why it doesn't work. See `Engine.examine`."""
    version = version_of("llama_cpp_python")
    if version is None:
        yield Finding("warn", "not installed", "pip install 'llmlab[llamacpp]'")
        return
    _imports.load("llama_cpp")
    found = build.words()
    detail = f"llama-cpp-python {version}, {found} build"
    if found == "CPU" and hardware.nvidia_gpus():
        fix = (
            'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python=='
            + version
        )
        yield Finding("warn", f"{detail}, though this machine has an NVIDIA GPU", fix)
    elif amx.crashes():
        detail += ", compiled by a GCC whose AMX code crashes (GCC bug 114098); AMX is off, so prompts are slower"
        yield Finding("warn", detail, amx.REBUILD + version)
    elif version != TESTED:
        fix = f"pip install llama-cpp-python=={TESTED}"
        yield Finding("warn", f"{detail}; tested with {TESTED}", fix)
    else:
        yield Finding("ok", detail)
