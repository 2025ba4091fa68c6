"""Write a scaled or mixed adapter as one PEFT adapter, for engines that don't scale adapters at run time.

The sum of s_i * B_i A_i becomes one pair: the A_i stacked vertically, the B_i (with their factors) horizontally. This
is PEFT's "cat" combination: exact, but its rank is the sum of the ranks.
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
    """The rank of a mix."""
    return sum(files.rank for files, _ in parts)


def key(parts: Parts) -> str:
    """A mix's cache key: a hash of its adapters and scales."""
    text = "+".join(sorted(f"{files.digest}:{scale:.9g}" for files, scale in parts))
    return hashlib.sha256(f"llmlab mix 1 {text}".encode()).hexdigest()


def folder(files: AdapterFiles) -> Path:
    """A PEFT folder of one adapter that every reader accepts: its own, or a plain copy in the cache.

    vLLM and peft accept only `lora_A.weight`, but files may have `lora_A.NAME.weight`; and vLLM matches the keys of
    `alpha_pattern` with a regex engine that can hang. The copy's matrices include the factors.

    Raises:
        LoadError: the disk is full or not writable.
    """
    return files.path if files.plain else write([(files, 1.0)])


def write(parts: Parts) -> Path:
    """The PEFT folder of a mix, written now if it isn't in the cache.

    Args:
        parts: PEFT adapters of one base, with their scales.

    Raises:
        LoadError: the disk is full or not writable.
    """
    place = config.cache_dir() / "adapters" / key(parts)[:16]
    if config.is_file(place / CONFIG) and config.is_file(place / WEIGHTS):
        return place
    total = rank(parts)
    needed = sum(4 * total * (p.a[1] + p.b[0]) for files, _ in parts for p in files.modules.values())
    with_room(place / WEIGHTS, needed)
    write_whole(place / WEIGHTS, lambda part: _weights(parts, total, part))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": parts[0][0].base,
        "r": total,
        "lora_alpha": total,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name for files, _ in parts for name in files.targets}),
    }
    write_whole(place / CONFIG, lambda part: _text(part, json.dumps(settings, indent=2)))
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
