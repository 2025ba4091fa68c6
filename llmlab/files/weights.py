"""Tensor data from safetensors files, one tensor at a time, as numpy arrays.

numpy has no bfloat16, so those tensors are returned as float32, which represents every bfloat16 exactly.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import UnsupportedError

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def names(file: Path) -> list[str]:
    """The names of a file's tensors, in the order of their data."""
    return [name for name, _ in _entries(file)[1]]


def tensors(file: Path) -> Iterator[tuple[str, Any]]:
    """All tensors of a file, in the order of their data.

    Args:
        file: the file; its header has been checked (llmlab.files.safetensors.read).

    Yields:
        Names and float arrays in the tensors' shapes, float32 or float16.

    Raises:
        UnsupportedError: a tensor has neither floats nor bfloats (a quantized checkpoint).
    """
    _imports.load("numpy")
    import numpy as np

    start, entries = _entries(file)
    for name, info in entries:
        yield name, _read(np, file, start, name, info)


def _entries(file: Path) -> tuple[int, list[tuple[str, dict[str, Any]]]]:
    """The offset of the data, and the header's entries in the order of their data."""
    with file.open("rb") as handle:
        length = struct.unpack("<Q", handle.read(8))[0]
        entries = json.loads(handle.read(length))
    named = [(name, info) for name, info in entries.items() if name != "__metadata__"]
    return 8 + length, sorted(named, key=lambda entry: entry[1]["data_offsets"][0])


def _read(np: Any, file: Path, start: int, name: str, info: dict[str, Any]) -> Any:
    kind = info["dtype"]
    if kind not in _TYPES:
        raise UnsupportedError(
            f"{name!r} in {file.name} has type {kind}: a quantized checkpoint can't be converted to GGUF.",
            "Convert the original 16-bit model.",
        )
    count = 1
    for size in info["shape"]:
        count *= size
    flat = np.fromfile(file, dtype=_TYPES[kind], count=count, offset=start + info["data_offsets"][0])
    if kind == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    elif kind == "F64":
        flat = flat.astype(np.float32)
    return flat.reshape(info["shape"])
