"""Keeps llama.cpp off AMX kernels that crash.

GCC's `_tile_loadconfig` (amxtileintrin.h) declares only the first 8 of the 64 bytes that the instruction reads, so GCC
12 drops the stores to the rest as dead, and `ldtilecfg` faults on what the stack holds: every prompt of a quantized
model ends the process with SIGSEGV (llama-cpp-python 0.3.36 compiled with GCC 12.2 on a CPU with AMX). llama.cpp has no
switch for AMX alone; without its extra buffer types it computes with AVX-512.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

_SAFE_GCC = 14
_COMPILER = re.compile(rb"GCC: \([^)]*\) (\d+)\.\d+")


@functools.cache
def crashes() -> bool:
    """Whether this machine's build has AMX kernels compiled by a GCC that breaks them."""
    import llama_cpp

    if b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info():
        return False
    libraries = (Path(llama_cpp.__file__).parent / "lib").glob("libggml-cpu*")
    return any(compiled_by_old_gcc(file.read_bytes()) for file in libraries)


def compiled_by_old_gcc(library: bytes) -> bool:
    """Whether the compiler that a library names in its `.comment` section is GCC older than 14."""
    return any(int(version) < _SAFE_GCC for version in _COMPILER.findall(library))
