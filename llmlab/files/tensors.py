"""Which tensors a model of a known kind must have, so that a missing one is named before an engine starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

# Hugging Face names, one decoder layer each. Only kinds whose layers are all alike are listed; others aren't checked.
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

# GGUF names (gguf.constants.TENSOR_NAMES); `output.weight` may be left out, which means tied embeddings.
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
    """The tensors that a folder's config.json asks for and its files lack.

    Quantized linear layers store `qweight`, `weight_packed` and the like in the place of `weight`: any of a
    module's tensors counts.

    Args:
        architecture: the config's first architecture.
        config: config.json, or the part of it that describes the language model.
        layers: how many it says there are.
        names: the names of all tensors.

    Returns:
        Their names; of layers beyond the number of tensors only the first.
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
    # A layer has a tensor, so with more layers than tensors one of these is missing: a damaged count lists no billions.
    return range(min(count, len(names) + 1))


def missing_in_gguf(architecture: str, layers: int, names: Iterable[str], *, experts: bool = False) -> list[str]:
    """The tensors that a GGUF file of a known kind lacks.

    Args:
        architecture: `general.architecture`.
        layers: how many the file says there are.
        names: the names of all tensors, of all parts.
        experts: it is a mixture of experts, whose layers have other tensors: nothing is checked.

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
