"""Small model folders made on the spot: the Llama shape with random weights, written byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

NANO = Path(__file__).parents[2] / "llmlab/zoo/models/nano"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """Write float tensors; BF16 is cut from float32."""
    header, blobs, at = {}, [], 0
    for name, array in tensors.items():
        if dtype == "BF16":
            raw = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            raw = array.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        blobs.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def llama_tensors(
    *, layers: int = 2, hidden: int = 64, inter: int = 96, heads: int = 4, kv_heads: int = 2, vocab: int = 2048,
    head_dim: int = 16, tied: bool = True, bias: bool = False, seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The tensors of a LlamaForCausalLM, with random values."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for i in range(layers):
        at = f"model.layers.{i}"
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (heads * head_dim, hidden),
            f"{at}.self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
            f"{at}.self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, heads * head_dim),
            f"{at}.mlp.gate_proj.weight": (inter, hidden),
            f"{at}.mlp.up_proj.weight": (inter, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inter),
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
        }
        if bias:
            shapes |= {
                f"{at}.self_attn.q_proj.bias": (heads * head_dim,),
                f"{at}.self_attn.k_proj.bias": (kv_heads * head_dim,),
            }
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    return {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def llama_config(**changes: object) -> dict[str, object]:
    """The config.json that goes with `llama_tensors`."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 2048,
        "max_position_embeddings": 512, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "dtype": "float32", "eos_token_id": 5,
    } | changes  # fmt: skip


def llama_folder(folder: Path, *, config: dict[str, object] | None = None, dtype: str = "F32", **sizes: object) -> Path:
    """A whole folder, with nano's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or llama_config()))
    write_safetensors(folder / "model.safetensors", llama_tensors(**sizes), dtype)  # type: ignore[arg-type]
    for name in TOKENIZER_FILES:
        (folder / name).write_bytes((NANO / name).read_bytes())
    return folder
