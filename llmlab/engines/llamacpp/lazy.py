"""Returns a new KV cache's memory to the system until it is used.

llama.cpp (0.3.36) zeroes the whole cache when it creates a context, which takes its full size in memory: 1.5 GB for
SmolLM2 with 8 sequences of 8,192 tokens, beside weights of 97 MB. The pages are still zero, so Linux may take them
back: a page reads as zeros again, and takes memory once a token is written to it. glibc serves such a large request
with a mapping of its own, whose header has its exact size; with another allocator, none is found, nothing changes.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable
from pathlib import Path

# Smaller caches aren't worth it, and glibc's threshold for a mapping of its own can rise to 32 MiB.
_LEAST = 33 * 2**20
_PAGE = 4096
_DONTNEED = 4  # MADV_DONTNEED
_IS_MMAPPED = 2  # in the size field of a glibc chunk
# More than the header, the alignment and the rounding of llama.cpp's message (0.01 MiB).
_SLACK = 32 * 1024
_SAMPLES = 256

Ranges = list[tuple[int, int]]


def mappings() -> Ranges:
    """Address ranges of the process's private writable memory; [] on other systems than Linux."""
    if sys.platform != "linux":
        return []
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0\s*$", text, re.MULTILINE)
    return [(int(start, 16), int(end, 16)) for start, end in found]


def release(before: Ranges, sizes: Iterable[int]) -> int:
    """Return the memory of caches that were created since `before`, and haven't been written to.

    Args:
        before: `mappings()` before they were created.
        sizes: their sizes in bytes, to 0.01 MiB.

    Returns:
        The bytes returned.
    """
    wanted = [size for size in sizes if size >= _LEAST]
    if not wanted or not before:
        return 0
    total = 0
    for start, end in _added(before, mappings()):
        at = start
        while at + _LEAST <= end:
            length = _chunk(at, end, wanted)
            if length:
                total += _return(at + _PAGE, length - 2 * _PAGE)
                at += length
            else:
                at += _PAGE
    return total


def _added(before: Ranges, after: Ranges) -> Ranges:
    """What `after` has in addition: the kernel merges a new mapping with its neighbours."""
    out: Ranges = []
    for start, end in after:
        at = start
        for low, high in sorted(before):
            if high <= at or low >= end:
                continue
            if low > at:
                out.append((at, low))
            at = max(at, high)
        if at < end:
            out.append((at, end))
    return out


def _chunk(at: int, end: int, sizes: list[int]) -> int:
    """The length of the glibc mapping of one of these sizes that starts here; 0 if none does."""
    field = ctypes.c_size_t.from_address(at + ctypes.sizeof(ctypes.c_size_t)).value
    length = field & ~7
    if field & 7 != _IS_MMAPPED or length % _PAGE or at + length > end:
        return 0
    return length if any(abs(length - size) <= _SLACK for size in sizes) else 0


def _return(at: int, length: int) -> int:
    zeros = bytes(_PAGE)
    step = max(length // _SAMPLES // _PAGE, 1) * _PAGE
    if any(ctypes.string_at(place, _PAGE) != zeros for place in range(at, at + length - _PAGE, step)):
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return length if madvise(at, length, _DONTNEED) == 0 else 0
