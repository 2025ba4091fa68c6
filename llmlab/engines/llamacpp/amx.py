"""Whether the installed llama.cpp's AMX code crashes.

GCC before 12.4 and 13.0 to 13.2 drop the stores to the argument of `_tile_loadconfig` (GCC bug 114098; llama.cpp's
pull request 26954 describes it too). On a CPU with AMX, the first product with a quantized weight then ends the process
with a segmentation fault. Debian 12's GCC is 12.2.
"""

from __future__ import annotations

import functools
import re

from llmlab.files import architectures

REBUILD = (
    'FLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"; CFLAGS="$FLAGS" CXXFLAGS="$FLAGS" '
    "pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python=="
)
"""The command that compiles llama.cpp without AMX, up to the version."""

_COMPILER = re.compile(rb"GCC: \([^)]*\) (\d+)\.(\d+)\.")


@functools.cache
def crashes() -> bool:
    """Whether llama.cpp has AMX code that a GCC with the bug compiled.

    Models are loaded without llama.cpp's extra weight layouts then, the only ones that use AMX; prompts are processed
    more slowly.
    """
    import llama_cpp

    if b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info():
        return False
    library = architectures.library()
    parts = library.parent.glob("*ggml-cpu*") if library is not None else ()
    return any(compiled_with_the_bug(part.read_bytes()) for part in parts)


def compiled_with_the_bug(library: bytes) -> bool:
    """Whether a shared library's `.comment` section names a GCC with bug 114098."""
    versions = {(int(major), int(minor)) for major, minor in _COMPILER.findall(library)}
    return any(version < (12, 4) or (13, 0) <= version < (13, 3) for version in versions)
