"""GGUF files with something changed: written anew, byte by byte, from what the reader of the gguf package gives."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Key = tuple[int, bytes]
_U32, _F32, _STRING, _ARRAY = 4, 6, 8, 9
_ALIGNMENT = 32


def u32(value: int) -> Key:
    """A key's value as the format writes it."""
    return _U32, struct.pack("<I", value)


def f32(value: float) -> Key:
    return _F32, struct.pack("<f", value)


def text(value: str | bytes) -> Key:
    data = value if isinstance(value, bytes) else value.encode()
    return _STRING, struct.pack("<Q", len(data)) + data


def texts(values: list[bytes]) -> Key:
    body = b"".join(struct.pack("<Q", len(one)) + one for one in values)
    return _ARRAY, struct.pack("<IQ", _STRING, len(values)) + body


def read(path: Path) -> tuple[dict[str, Key], dict[str, tuple[tuple[int, ...], int, bytes]]]:
    """The keys, and the tensors as (shape, type number, data); a shape has the fastest dimension first."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    keys = {}
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):
            continue
        # Parts: length and text of the name, the type, and then the value's.
        body = b"".join(np.ascontiguousarray(part).tobytes() for part in field.parts[3:])
        keys[field.name] = int(field.types[0]), body
    tensors = {
        one.name: (tuple(int(n) for n in one.shape), int(one.tensor_type), one.data.tobytes()) for one in reader.tensors
    }
    return keys, tensors


def tokens(path: Path) -> list[bytes]:
    from gguf import GGUFReader

    field = GGUFReader(path).fields["tokenizer.ggml.tokens"]
    return [bytes(field.parts[place]) for place in field.data]


def write(path: Path, keys: Mapping[str, Key], tensors: Mapping[str, Any], *, size: int | None = None) -> Path:
    """Write a file. With `size`, the tensors' data is left out: the file gets that many bytes, all holes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, (kind, body) in keys.items():
        head += text(name)[1] + struct.pack("<I", kind) + body
    at, data = 0, b""
    for name, (shape, kind, body) in tensors.items():
        head += text(name)[1] + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, at)
        length = body if isinstance(body, int) else len(body)
        padded = -(-length // _ALIGNMENT) * _ALIGNMENT
        data += b"" if isinstance(body, int) else body + bytes(padded - length)
        at += padded
    head += bytes(-len(head) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(head + data)
        if size is not None:
            file.truncate(max(size, len(head) + at))
    return path


def edited(path: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A copy of a file, changed by a function of its keys and tensors."""
    keys, tensors = read(path)
    change(keys, tensors)
    return write(target, keys, tensors)
