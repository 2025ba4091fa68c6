"""PEFT folders for nano without training: random matrices, strong enough to change the output."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from llmlab import zoo

HIDDEN, WIDE, LAYERS, KEYS = 256, 768, 6, 128
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (WIDE, HIDDEN),
    "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}


def tensors(seed, *, rank=8, strength=0.05, layers=LAYERS, shapes=SHAPES, targets=tuple(SHAPES)):
    """`strength`: the standard deviation of the change to the weights."""
    rng = np.random.default_rng(seed)
    out = {}
    for layer in range(layers):
        for module in targets:
            rows, columns = shapes[module]
            name = f"base_model.model.model.layers.{layer}.{module}"
            out[f"{name}.lora_A.weight"] = rng.normal(0, 1, (rank, columns)).astype(np.float32)
            out[f"{name}.lora_B.weight"] = rng.normal(0, strength / rank**0.5, (rows, rank)).astype(np.float32)
    return out


def write(folder, found, *, rank=8, alpha=None, base=None, **config):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found, folder / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank if alpha is None else alpha,
        "target_modules": sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in found if ".lora_" in name}),
        "base_model_name_or_path": str(zoo.path("nano")) if base is None else base,
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def make(folder, seed, *, rank=8, strength=0.05, base=None, **config):
    return write(folder, tensors(seed, rank=rank, strength=strength), rank=rank, base=base, **config)
