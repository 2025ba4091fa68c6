"""A scale or a mix as one PEFT adapter: for engines that don't scale adapters as they decode.

The sum of s_i * B_i A_i is written as one pair, the A_i above one another and the B_i (with their factors) side by
side: PEFT's "cat" combination, which is exact, at the price of a rank that is the sum of the ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from llmlab import _imports, config
from llmlab.adapters.files import CONFIG, WEIGHTS, AdapterFiles
from llmlab.files import weights
from llmlab.quant.gguf_cache import with_room, write_whole

Parts = Sequence[tuple[AdapterFiles, float]]


def rank(parts: Parts) -> int:
    """The rank that a mix has."""
    return sum(files.rank for files, _ in parts)


def key(parts: Parts) -> str:
    """What names a mix: a hash of its adapters and scales."""
    text = "+".join(sorted(f"{files.digest}:{scale:.9g}" for files, scale in parts))
    return hashlib.sha256(f"llmlab mix 1 {text}".encode()).hexdigest()


def folder(files: AdapterFiles) -> Path:
    """A PEFT folder of one adapter that every reader takes: its own, or a plain copy in the cache.

    vLLM and peft know `lora_A.weight` alone, where files may say `lora_A.NAME.weight`; and vLLM matches the keys of
    `alpha_pattern` with a regex engine that they can hang. A copy has the factors in its matrices.

    Raises:
        LoadError: the disk is full or can't be written.
    """
    return files.path if files.plain else write([(files, 1.0)])


def write(parts: Parts) -> Path:
    """The PEFT folder of a mix, made now if it isn't in the cache.

    Args:
        parts: PEFT adapters of one base, with their scales.

    Raises:
        LoadError: the disk is full or can't be written.
    """
    place = config.cache_dir() / "adapters" / key(parts)[:16]
    if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
        return place
    total = rank(parts)
    needed = sum(4 * total * (p.a[1] + p.b[0]) for files, _ in parts for p in files.modules.values())
    with_room(place / WEIGHTS, needed)
    write_whole(place / WEIGHTS, lambda part: _weights(parts, total, part))
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": parts[0][0].base,
        "r": total,
        "lora_alpha": total,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name for files, _ in parts for name in files.targets}),
    }
    write_whole(place / CONFIG, lambda part: _text(part, json.dumps(said, indent=2)))
    return place


def _text(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")


def _weights(parts: Parts, total: int, target: Path) -> None:
    _imports.load("numpy", "safetensors.numpy")
    import numpy as np
    from safetensors.numpy import save_file

    out = {}
    at = 0
    for files, scale in parts:
        data = dict(weights.tensors(files.weights))
        for module, pair in files.modules.items():
            name_a, name_b = (f"base_model.model.{module}.lora_{side}.weight" for side in "AB")
            if name_a not in out:
                out[name_a] = np.zeros((total, pair.a[1]), np.float32)
                out[name_b] = np.zeros((pair.b[0], total), np.float32)
            out[name_a][at : at + pair.rank] = data[pair.names[0]]
            out[name_b][:, at : at + pair.rank] = data[pair.names[1]] * np.float32(pair.scaling * scale)
        at += files.rank
    save_file(out, target)
