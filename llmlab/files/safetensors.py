"""Reads the headers of a Hugging Face folder's safetensors files: names, types, shapes and sizes of the tensors.

Format (https://huggingface.co/docs/safetensors#format): 8 bytes with the header's length (little-endian), the header as
JSON, then the data, addressed by `data_offsets`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from llmlab.errors import LoadError, UnsupportedError
from llmlab.files import jsonfile
from llmlab.files.gguf import TensorInfo

# Bits per value (safetensors' Dtype).
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
_MOST_DIMENSIONS = 16
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX = "model.safetensors.index.json"


def read(path: Path) -> tuple[TensorInfo, ...]:
    """Read one file's header and check that the file contains all its data.

    Raises:
        LoadError: not a safetensors file, or truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return parse(file.read, size, path)


def parse(take: Callable[[int], bytes], size: int, path: Path) -> tuple[TensorInfo, ...]:
    """As `read`, from the first bytes of a file.

    Args:
        take: returns the next bytes of the file, fewer only at its end.
        size: the file's size in bytes.
        path: the file's name in messages.
    """
    head = take(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else None
    if length is None or length > jsonfile.LARGEST:
        raise LoadError(f"{path} is not a safetensors file: no header length at its start.", "Download it again.")
    text = take(length)
    if len(text) < length:
        raise LoadError(
            f"{path} is truncated: the file has {size:,} bytes, its header alone needs {8 + length:,}.",
            "The download or copy did not finish: download it again.",
        )
    try:
        entries = jsonfile.parse(text, path)
        found = [_tensor(name, info) for name, info in entries.items() if name != "__metadata__"]
    except (LoadError, ValueError) as error:
        why = f": {error}" if type(error) is ValueError else "."
        raise LoadError(f"{path} is not a safetensors file: its header is not valid{why}") from None
    needed = 8 + length + max((end for _, end in found), default=0)
    if needed > size:
        raise LoadError(
            f"{path} is truncated: the file has {size:,} bytes, its header specifies {needed:,} bytes.",
            "The download or copy did not finish: download it again.",
        )
    return tuple(tensor for tensor, _ in found)


def _tensor(name: str, info: Any) -> tuple[TensorInfo, int]:
    """One entry of a header, and the end offset of its data; ValueError if it is invalid."""
    entry = info if isinstance(info, dict) else {}
    dtype, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _whole(shape) or len(shape) > _MOST_DIMENSIONS or not _whole(place):
        raise ValueError(f"the entry of {name!r:.60} has no dtype, shape or data_offsets.")
    if len(place) != 2 or place[0] > place[1]:
        raise ValueError(f"the data_offsets of {name!r:.60} are {place!r:.60}.")
    tensor = TensorInfo(name, tuple(shape), dtype, place[1] - place[0])
    bits = _BITS.get(dtype)
    # A type that isn't in the table has at least one bit per value.
    if tensor.elements * bits > tensor.bytes * 8 + 7 if bits else tensor.elements > tensor.bytes * 8:
        raise ValueError(f"{name!r:.60} has the shape {shape!r:.60} but only {tensor.bytes:,} bytes.")
    return tensor, place[1]


def _whole(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those in its index, or all of them.

    Raises:
        LoadError: there are none, or one in the index is missing.
        UnsupportedError: the weights are available only as pickles.
    """
    index = folder / INDEX
    if index.is_file():
        listed = sorted(set(_weight_map(index).values()))
        missing = [name for name in listed if not (folder / name).is_file()]
        if missing:
            raise LoadError(
                f"{folder} lacks {len(missing)} of the {len(listed)} weight files listed in {INDEX}: "
                f"{', '.join(missing[:4])}.",
                "Download the folder again.",
            )
        return [folder / name for name in listed]
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("consolidated"))
    if found:
        return found
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UnsupportedError(
            f"{folder} has its weights only as pickle files ({', '.join(pickles[:3])}), which can run any code "
            "when they are read.",
            "Use a repository or revision with safetensors, or convert it where you trust it "
            "(transformers: save_pretrained(..., safe_serialization=True)).",
        )
    raise LoadError(f"{folder} has no weights: no *.safetensors file.", "Download the folder again.")


def read_folder(folder: Path) -> tuple[list[Path], tuple[TensorInfo, ...]]:
    """All weight files of a folder and all their tensors.

    Raises:
        LoadError: a file is missing or damaged, or lacks a tensor listed in the index.
        UnsupportedError: the weights are available only as pickles.
    """
    files = weight_files(folder)
    tensors: dict[str, TensorInfo] = {}
    for path in files:
        tensors.update((tensor.name, tensor) for tensor in read(path))
    index = folder / INDEX
    if index.is_file():
        gone = [name for name in _weight_map(index) if name not in tensors]
        if gone:
            raise LoadError(
                f"{folder} lacks {len(gone)} tensors listed in {INDEX}, starting with {gone[0]!r}.",
                "Download the folder again.",
            )
    return files, tuple(tensors.values())


def _weight_map(index: Path) -> dict[str, str]:
    listed = jsonfile.read(index).get("weight_map")
    # A name with a path could point outside the folder; file systems don't accept names above 255 bytes.
    if not isinstance(listed, dict) or not all(
        isinstance(name, str) and 0 < len(name) < 200 and name.isprintable() and Path(name).name == name
        for name in listed.values()
    ):
        raise LoadError(f"{index} is not a weight index: it needs a 'weight_map' of file names.")
    return listed
