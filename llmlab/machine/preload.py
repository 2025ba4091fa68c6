"""Environment variables that a kernel has to start with to be fast: what was measured to pay, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Where Debian, Ubuntu, Fedora, Arch and conda have them; vLLM's own wheels have one in some releases.
_TCMALLOC = (
    "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
    "/usr/lib/aarch64-linux-gnu/libtcmalloc_minimal.so.4",
    "/usr/lib64/libtcmalloc_minimal.so.4",
    "/usr/lib/libtcmalloc_minimal.so.4",
    f"{sys.prefix}/lib/libtcmalloc_minimal.so.4",
)


def tcmalloc() -> str | None:
    """The installed tcmalloc; None without one."""
    return next((path for path in _TCMALLOC if Path(path).is_file()), None) if sys.platform == "linux" else None


def settings() -> dict[str, str]:
    """The variables for a new kernel, as far as this process's environment doesn't set them."""
    return {}


def loaded(library: str) -> bool:
    """Whether this process has loaded a library, from its memory map."""
    try:
        return library in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return library in os.environ.get("LD_PRELOAD", "")
