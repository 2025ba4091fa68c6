"""The tensors that a known architecture must have, so that a missing one is reported before an engine starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

# Hugging Face names of one decoder layer. Only architectures whose layers are all alike are listed and checked.
_LLAMA = (
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)
_QWEN2 = (*_LLAMA, "self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")
_QWEN3 = (*_LLAMA, "self_attn.q_norm.weight", "self_attn.k_norm.weight")
_FOLDER: dict[str, tuple[str, ...]] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _QWEN2,
    "Qwen3ForCausalLM": _QWEN3,
}

# GGUF names (gguf.constants.TENSOR_NAMES); without `output.weight` the embeddings are tied.
_BLOCK = (
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
)
_GGUF: dict[str, tuple[str, ...]] = {
    "llama": _BLOCK,
    "qwen2": (*_BLOCK, "attn_q.bias", "attn_k.bias", "attn_v.bias"),
    "qwen3": (*_BLOCK, "attn_q_norm.weight", "attn_k_norm.weight"),
}


def missing_in_folder(architecture: str, config: Mapping[str, Any], layers: int, names: Iterable[str]) -> list[str]:
    """The tensors that a folder's config.json requires and its files don't have.

    Quantized linear layers store `qweight`, `weight_packed` and the like instead of `weight`: any of the module's
    tensors counts.

    Args:
        architecture: the config's first architecture.
        config: config.json, or the part of it that describes the language model.
        layers: number of layers in the config.
        names: the names of all tensors.

    Returns:
        Their names; beyond the number of tensors, only those of the first layer.
    """
    layer = _FOLDER.get(architecture)
    if layer is None:
        return []
    have = set(names)
    modules = {name.rsplit(".", 1)[0] for name in have}
    wanted = ["model.embed_tokens.weight", "model.norm.weight"]
    if not config.get("tie_word_embeddings", False):
        wanted.append("lm_head.weight")
    wanted += [f"model.layers.{i}.{name}" for i in _layers(layers, have) for name in layer]

    packed = bool(config.get("quantization_config"))

    def there(name: str) -> bool:
        module, _, kind = name.rpartition(".")
        return name in have or (packed and kind == "weight" and "norm" not in module and module in modules)

    return [name for name in wanted if not there(name)]


def _layers(count: int, names: Collection[str]) -> range:
    # Each layer has a tensor: checking one layer more than there are tensors is enough, even if the count is damaged.
    return range(min(count, len(names) + 1))


def missing_in_gguf(architecture: str, layers: int, names: Iterable[str], *, experts: bool = False) -> list[str]:
    """The tensors that a GGUF file of a known architecture should have and doesn't.

    Args:
        architecture: `general.architecture`.
        layers: number of layers in the file's metadata.
        names: the names of all tensors, of all parts.
        experts: it is a mixture of experts, whose layers have other tensors; nothing is checked.

    Returns:
        As `missing_in_folder`.
    """
    block = _GGUF.get(architecture)
    if block is None or experts:
        return []
    have = set(names)
    wanted = ["token_embd.weight", "output_norm.weight"]
    for i in _layers(layers, have):
        fused = f"blk.{i}.attn_qkv.weight" in have
        separate = ("attn_q.", "attn_k.", "attn_v.")
        wanted += [f"blk.{i}.{name}" for name in block if not (fused and name.startswith(separate))]
    return [name for name in wanted if name not in have]
