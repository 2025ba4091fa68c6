"""Read the headers of a Hugging Face folder's safetensors files: names, types, shapes and sizes of the tensors.

Format: https://huggingface.co/docs/safetensors#format: 8 bytes with the header's length (little-endian), the
header as JSON, then the data, which `data_offsets` point into.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmlab.errors import LoadError, UnsupportedError
from llmlab.files.gguf import TensorInfo

# The format's own limit (100 MB), so that a damaged length can't ask for all memory.
_LONGEST_HEADER = 100_000_000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX = "model.safetensors.index.json"


def read(path: Path) -> tuple[TensorInfo, ...]:
    """Read one file's header and check that all its data is there.

    Raises:
        LoadError: not a safetensors file, or truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return parse(file.read, size, path)


def parse(take: Callable[[int], bytes], size: int, path: Path) -> tuple[TensorInfo, ...]:
    """As `read`: from the first bytes of a file.

    Args:
        take: gives the next bytes of the file, fewer only at its end.
        size: bytes of the whole file.
        path: what the file is called in messages.
    """
    head = take(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else None
    if length is None or length > _LONGEST_HEADER:
        raise LoadError(f"{path} is not a safetensors file: no header length at its start.", "Fetch it again.")
    text = take(length)
    if len(text) < length:
        raise LoadError(
            f"{path} is truncated: the file has {size:,} bytes, its header alone needs {8 + length:,}.",
            "The download or copy did not finish: fetch it again.",
        )
    try:
        entries: dict[str, Any] = json.loads(text)
        tensors = tuple(
            TensorInfo(name, tuple(info["shape"]), info["dtype"], info["data_offsets"][1] - info["data_offsets"][0])
            for name, info in entries.items()
            if name != "__metadata__"
        )
        ends = [info["data_offsets"][1] for name, info in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise LoadError(f"{path} is not a safetensors file: its header is not the format's JSON.") from None
    needed = 8 + length + max(ends, default=0)
    if needed > size:
        raise LoadError(
            f"{path} is truncated: the file has {size:,} bytes, its header promises {needed:,} bytes.",
            "The download or copy did not finish: fetch it again.",
        )
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those that its index lists, or all of them.

    Raises:
        LoadError: there are none, or the index lists one that isn't there.
        UnsupportedError: the weights are only there as pickles.
    """
    index = folder / INDEX
    if index.is_file():
        listed = sorted(set(_weight_map(index).values()))
        missing = [name for name in listed if not (folder / name).is_file()]
        if missing:
            raise LoadError(
                f"{folder} lacks {len(missing)} of the {len(listed)} weight files that {INDEX} lists: "
                f"{', '.join(missing[:4])}.",
                "Fetch the folder again.",
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
    raise LoadError(f"{folder} has no weights: no *.safetensors file.", "Fetch the folder again.")


def read_folder(folder: Path) -> tuple[list[Path], tuple[TensorInfo, ...]]:
    """All weight files of a folder and all their tensors.

    Raises:
        LoadError: a file is missing, broken, or lacks a tensor that the index says it holds.
        UnsupportedError: the weights are only there as pickles.
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
                f"{folder} lacks {len(gone)} tensors that {INDEX} lists, {gone[0]!r} first.", "Fetch the folder again."
            )
    return files, tuple(tensors.values())


def _weight_map(index: Path) -> dict[str, str]:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        # A name with a path in it could point out of the folder.
        if any(Path(name).name != name for name in listed.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadError(f"{index} is not a weight index: it needs a 'weight_map' of file names.") from None
    return {str(tensor): str(name) for tensor, name in listed.items()}
