"""Reads the header of a GGUF file: its keys and the list of its tensors, not their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). The `gguf`
package's reader creates an object for every token and merge (seconds for a vocabulary of 128,000) and takes more than
a second to import next to vLLM, so this reader skips large arrays; a test compares the two.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmlab.errors import LoadError

MAGIC = b"GGUF"
# Arrays up to this length are kept (per-layer head counts, tags); longer ones (tokens, merges) are skipped.
_KEPT = 1024
# Limits of a header. Real ones are far below: templates of 100 kB, vocabularies of 300,000 tokens.
_KEPT_BYTES = 64 * 2**20
_MOST_STRINGS = 2**22
_MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
_TOKENS = "tokenizer.ggml.tokens"
_LENGTH = struct.Struct("<Q")
_PIECE = 2**14
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# Tensor types: number -> (name, values per block, bytes per block); gguf.constants.GGML_QUANT_SIZES.
_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 22: ("IQ2_S", 256, 82), 18: ("IQ3_XXS", 256, 98),
    21: ("IQ3_S", 256, 110), 19: ("IQ1_S", 256, 50), 29: ("IQ1_M", 256, 56), 20: ("IQ4_NL", 32, 18),
    9: ("Q8_1", 32, 40), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
    23: ("IQ4_XS", 256, 136), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array that was skipped.

    Attributes:
        length: number of entries.
        longest: bytes of its longest string.
        twice: a string that occurs more than once; checked for the vocabulary's tokens only.
        start: where the entries of an array of numbers start in the file.
    """

    length: int
    longest: int = 0
    twice: bytes | None = None
    start: int = 0


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as a header lists it.

    Attributes:
        shape: in the framework's order, slowest dimension first.
        dtype: the type's name in its format (`Q4_K`, `F32`; `BF16`, `I32`).
        bytes: its size in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def elements(self) -> int:
        """Number of values (packed integers count as stored)."""
        out = 1
        for size in self.shape:
            out *= size
        return out


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of one file (of one part, if the model is split)."""

    path: Path
    keys: dict[str, Any]
    tensors: tuple[TensorInfo, ...]


class Bytes(Protocol):
    """The source of a header: a mapped file, or a remote file that is fetched as needed."""

    def __len__(self) -> int:
        """Size of the file in bytes."""

    def __getitem__(self, place: slice, /) -> bytes:
        """A slice of the bytes."""


class _EndedError(Exception):
    """The file ended inside its header."""


class _Cursor:
    """Reads values in sequence from a mapped or remote file, never past its end."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.at = 0
        self.kept = 0

    def skip(self, count: int) -> int:
        start = self.at
        if count > len(self.data) - start:
            raise _EndedError
        self.at = start + count
        return start

    def scalar(self, kind: int) -> Any:
        code = _SCALARS[kind]
        start = self.skip(struct.calcsize(code))
        return struct.unpack(code, self.data[start : self.at])[0]

    def u32(self) -> int:
        return int(self.scalar(4))

    def u64(self) -> int:
        return int(self.scalar(10))

    def text(self) -> str:
        length = self.u64()
        start = self.skip(length)
        self.kept += length
        if self.kept > _KEPT_BYTES:
            raise ValueError(f"its strings have more than {_KEPT_BYTES:,} bytes")
        return self.data[start : start + length].decode("utf-8", errors="replace")

    def value(self, kind: int, key: str = "") -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise ValueError(f"value type {kind} isn't defined by the format")
        return self.scalar(kind)

    def array(self, key: str) -> Any:
        kind, length = self.u32(), self.u64()
        if kind not in _SCALARS and kind != _STRING:
            raise ValueError(f"an array of value type {kind} isn't defined by the format")
        if kind == _STRING and (length > _KEPT or key == _TOKENS):
            return self.strings(length, unique=key == _TOKENS)
        if length <= _KEPT:
            return tuple(self.value(kind) for _ in range(length))
        return Skipped(length, start=self.skip(length * struct.calcsize(_SCALARS[kind])))

    def strings(self, length: int, *, unique: bool) -> Skipped:
        """Skip strings; with `unique`, look for a duplicate."""
        if length > _MOST_STRINGS:
            raise ValueError(f"an array has {length:,} strings")
        longest, texts = 0, list[bytes]()
        # A vocabulary and its merges are half a million strings: lengths are read from pieces, without a call for each.
        data, start, end, unpack = self.data, self.at, len(self.data), _LENGTH.unpack_from
        piece, place, last = b"", 0, -1
        for _ in range(length):
            if place > last:
                start += place
                if end - start < 8:
                    raise _EndedError
                piece = data[start : start + _PIECE]
                place, last = 0, len(piece) - 8
            size = unpack(piece, place)[0]
            begin = place + 8
            place = begin + size
            if size > longest:
                if size > end - start - begin:
                    raise _EndedError
                longest = size
            # llama.cpp renames empty tokens by number; strings longer than any token are refused for their length.
            if unique and 0 < size <= _KEPT:
                text = piece[begin:place]
                texts.append(text if len(text) == size else data[start + begin : start + place])
        if start + place > end:
            raise _EndedError
        self.at = start + place
        return Skipped(length, longest, _repeated(texts))


def _repeated(texts: list[bytes]) -> bytes | None:
    """The first text that an earlier one equals."""
    if len(set(texts)) == len(texts):
        return None
    seen = set[bytes]()
    for text in texts:
        if text in seen:
            break
        seen.add(text)
    return text


def is_gguf(path: Path) -> bool:
    """Whether a file starts with GGUF's magic bytes."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read(path: Path) -> GgufFile:
    """Read one file's header and check that the file contains all its tensor data.

    Raises:
        LoadError: not GGUF, an unsupported version or byte order, or truncated.
    """
    if not path.stat().st_size:
        raise _not_gguf(path, b"")
    return _read(path, state(path))


def state(path: Path) -> tuple[int, ...]:
    """What differs between a file and another one that takes its place.

    With the time of the change, which no program can set: `cp -p` and editors of metadata keep size and mtime.
    """
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


# A load asks for it several times, and SmolLM2's 49,152 tokens and their merges take 0.09 s each time.
@functools.lru_cache(maxsize=16)
def _read(path: Path, _state: tuple[int, ...]) -> GgufFile:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return parse(data, path)


def token_types(path: Path) -> Sequence[int]:
    """The type of each token (`gguf.TokenType`: 1 normal, 2 unknown, 3 control, 4 user-defined, ...); () if not listed.

    Args:
        path: the file, or the first part of a split one.

    Raises:
        LoadError: as `read`.
    """
    found = read(path).keys.get("tokenizer.ggml.token_type", ())
    if not isinstance(found, Skipped):
        return tuple(found)
    with path.open("rb") as file:
        file.seek(found.start)
        return struct.unpack(f"<{found.length}i", file.read(4 * found.length))


def parse(data: Bytes, path: Path) -> GgufFile:
    """As `read`, from the bytes of a file; only those of its header are accessed.

    Args:
        data: the file's bytes.
        path: the file's name in messages.
    """
    size = len(data)
    head = data[:8]
    if head[:4] != MAGIC:
        raise _not_gguf(path, head)
    if len(head) < 8:
        raise _truncated(path, size, None)
    version = struct.unpack("<I", head[4:])[0]
    if version not in (2, 3):
        reason = "a big-endian file" if version & 0xFFFF == 0 else f"format version {version}"
        raise LoadError(f"{path} can't be read: {reason}; supported are versions 2 and 3, little-endian.")
    try:
        keys, raw, start = _walk(_Cursor(data))
    except _EndedError:
        raise _truncated(path, size, None) from None
    except ValueError as error:
        raise LoadError(f"{path} has a damaged header: {error}.", "Download or convert it again.") from None
    tensors, end = _tensors(raw, start, size)
    if end > size:
        raise _truncated(path, size, end)
    return GgufFile(path, keys, tensors)


def _not_gguf(path: Path, head: bytes) -> LoadError:
    what = "is empty" if not head else f"starts with {head[:4]!r}, not with {MAGIC!r}"
    return LoadError(
        f"{path} is not a GGUF file: it {what}.",
        "Check the download (a web page saved as a file is a common cause), and download it again.",
    )


def _truncated(path: Path, size: int, needed: int | None) -> LoadError:
    detail = f"its header specifies {needed:,} bytes" if needed is not None else "it ends inside its header"
    return LoadError(
        f"{path} is truncated: the file has {size:,} bytes, {detail}.",
        "The download or copy did not finish: download it again.",
    )


_Raw = tuple[str, tuple[int, ...], int, int]


def _walk(cursor: _Cursor) -> tuple[dict[str, Any], list[_Raw], int]:
    """The keys, the tensors as (name, dims, type number, offset), and the offset of the tensor data."""
    cursor.skip(8)
    tensor_count, key_count = cursor.u64(), cursor.u64()
    keys: dict[str, Any] = {}
    for _ in range(key_count):
        name = cursor.text()
        if name in keys:
            raise ValueError(f"the key {name!r:.60} occurs twice")
        keys[name] = cursor.value(cursor.u32(), name)
    raw: list[_Raw] = []
    seen: set[str] = set()
    for _ in range(tensor_count):
        name, rank = cursor.text(), cursor.u32()
        if name in seen:
            raise ValueError(f"the tensor {name!r:.60} occurs twice")
        seen.add(name)
        if rank > _MOST_DIMENSIONS:
            raise ValueError(f"tensor {name!r:.60} has {rank} dimensions")
        dims = tuple(cursor.u64() for _ in range(rank))
        raw.append((name, dims, cursor.u32(), cursor.u64()))
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}")
    return keys, raw, -(-cursor.at // alignment) * alignment


def _tensors(raw: list[_Raw], start: int, size: int) -> tuple[tuple[TensorInfo, ...], int]:
    """The tensors with their sizes, and the end offset of the last one."""
    offsets = sorted({*(offset for *_, offset in raw), max(size - start, 0)})
    out, end = [], start
    for name, dims, number, offset in raw:
        elements = 1
        for dim in dims:
            elements *= dim
        if number in _TYPES:
            dtype, block, block_bytes = _TYPES[number]
            count = elements // block * block_bytes
        else:
            # A type newer than the table: its size follows from the next tensor's offset.
            following = bisect_right(offsets, offset)
            dtype, count = f"type {number}", offsets[following] - offset if following < len(offsets) else 0
        out.append(TensorInfo(name, tuple(reversed(dims)), dtype, count))
        end = max(end, start + offset + count)
    return tuple(out), end


def parts(path: Path) -> list[Path]:
    """The files of a model: the file itself, or all parts of a split one (`name-00001-of-00003.gguf`), in order.

    Raises:
        LoadError: a part is missing.
    """
    match = _PART.match(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    found = [path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in found if not part.is_file()]
    if missing:
        raise LoadError(
            f"{path.name} is one of {count} parts, and {len(missing)} are missing: {', '.join(missing[:4])}.",
            f"Put all parts into {path.parent}.",
        )
    return found
