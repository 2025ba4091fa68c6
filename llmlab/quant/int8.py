"""Make an int8 checkpoint of a 16-bit folder without calibration: weights are rounded to nearest.

The format is compressed-tensors' `int-quantized` (vLLM's W8A8): a linear layer's weight W (rows: outputs) becomes
q = round(W / s) with one scale per row, s = max |row| / 127; activations are quantized at run time with one scale per
token (LLM.int8() without outliers: Dettmers et al., arXiv:2208.07339, section 2). vLLM's online int8
(`int8_per_channel_weight_only`) quantizes only the experts of mixture models, so dense models need this checkpoint.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import LoadError
from llmlab.files import weights
from llmlab.files.headers import Header
from llmlab.types.progress import Progress

_KEPT = ("embed_tokens.weight", "lm_head.weight")

QUANTIZATION: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


def why_not(header: Header) -> str | None:
    """Why a folder can't be converted to int8 here, in one line; None for a dense model of `*_proj` layers."""
    if header.quant not in ("bf16", "fp16", "fp32"):
        return f"it is already quantized ({header.quant})"
    for tensor in header.tensors:
        if len(tensor.shape) > 2 or (len(tensor.shape) == 2 and not _linear(tensor.name) and not _kept(tensor.name)):
            return f"it has layers that aren't plain projections ({tensor.name})"
    return None


def write(header: Header, target: Path, progress: Progress | None = None) -> None:
    """Write the checkpoint into an existing empty folder.

    Args:
        header: the 16-bit folder's header, accepted by `why_not`.
        target: the folder; the caller renames it when complete.
        progress: called with "quantize" and the fraction of tensors done.

    Raises:
        LoadError: the disk is full or a file can't be read.
    """
    try:
        _write_weights(header, target / "model.safetensors", progress)
        config = {**header.metadata, "quantization_config": QUANTIZATION}
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        copy_around(header.path, target)
    except OSError as error:
        raise LoadError(
            f"The int8 checkpoint of {header.name} could not be written: {error}.",
            "Check the disk, or set LLMLAB_CACHE.",
        ) from error


def copy_around(source: Path, target: Path) -> None:
    """Copy a folder's other small files: tokenizer, chat template, generation defaults."""
    for file in sorted(source.iterdir()):
        small = file.suffix in (".json", ".jinja", ".model", ".txt") and not file.name.endswith(".index.json")
        if file.is_file() and small and file.name not in ("config.json", "training.json", "llmlab.json"):
            shutil.copyfile(file, target / file.name)


def _linear(name: str) -> bool:
    return name.endswith("_proj.weight")


def _kept(name: str) -> bool:
    return name.endswith(_KEPT)


def _write_weights(header: Header, file: Path, progress: Progress | None) -> None:
    _imports.load("numpy")
    import numpy as np

    # Two passes: the header, which precedes the data, has every tensor's size.
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0

    def place(name: str, kind: str, shape: tuple[int, ...], size: int) -> None:
        nonlocal at
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size

    order = [name for part in header.files for name in weights.names(part)]
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for name in order:
        shape = shapes[name]
        count = int(np.prod(shape, dtype=np.int64))
        if _linear(name):
            place(name, "I8", shape, count)
            place(f"{name}_scale", "F32", (shape[0], 1), 4 * shape[0])
        else:
            place(name, "BF16", shape, 2 * count)
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        done = 0
        for part in header.files:
            for name, data in weights.tensors(part):
                values = np.asarray(data, dtype=np.float32)
                if _linear(name):
                    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
                    out.write(np.rint(values / scale).clip(-127, 127).astype(np.int8).tobytes())
                    out.write(scale.astype(np.float32).tobytes())
                else:
                    out.write(bf16(np, values).tobytes())
                done += 1
                if progress is not None:
                    progress("quantize", done / len(order))


def bf16(np: Any, values: Any) -> Any:
    """Round to bfloat16, to nearest with ties to even; exact for values that were bfloat16."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
