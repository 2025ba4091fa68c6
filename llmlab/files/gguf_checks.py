"""Checks of a GGUF header for values on which llama.cpp would abort the process.

Its `GGML_ASSERT`s call abort(), which no Python code survives, so everything that the header reveals is checked before
llama.cpp opens the file. The limits are from llama.cpp's src/llama-hparams.h and llama-model.cpp (load_hparams).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from llmlab.errors import LoadError
from llmlab.files.gguf import Skipped, TensorInfo
from llmlab.files.jsonfile import Fields

_MOST_LAYERS = 512  # LLAMA_MAX_LAYERS
_MOST_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
_ALIGNMENT = 32  # ggml's TENSOR_ALIGNMENT: of what a mapped file's weights start at
# llguidance panics above 1,024 bytes (toktrie's PARENT_BITS), of which a special token's marker takes one.
_LONGEST_TOKEN = 1023
# No kernel multiplies matrices of these types; I32 tables (deepseek4's routing) are only looked up.
_NO_MATRIX = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
_TABLES = "tid2eid"


def check(path: object, architecture: str, keys: Mapping[str, Any], tensors: Iterable[TensorInfo]) -> None:
    """Refuse a model whose header would make llama.cpp abort.

    Args:
        path: the file's name in messages.
        architecture: its `general.architecture`.
        keys: its keys.
        tensors: its tensors, of all parts.

    Raises:
        LoadError: the message names the key or the tensor, and the allowed values.
    """
    try:
        _check_alignment(keys)
        _check_numbers(architecture, keys)
        _check_experts(Fields(keys, path, f"{architecture}."), architecture)
        _check_tokenizer(keys)
        for tensor in tensors:
            _check_type(tensor)
    except ValueError as error:
        raise LoadError(
            f"{path} can't be loaded: {error}.", "The file is damaged: download or convert it again."
        ) from None


def _check_alignment(keys: Mapping[str, Any]) -> None:
    alignment = keys.get("general.alignment", _ALIGNMENT)
    if alignment % _ALIGNMENT:
        raise ValueError(f"general.alignment is {alignment}; llama.cpp maps files from {_ALIGNMENT} on")


def _check_numbers(architecture: str, keys: Mapping[str, Any]) -> None:
    for key, value in keys.items():
        if not key.startswith(f"{architecture}."):
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and math.isnan(one):
                raise ValueError(f"{key} is NaN")
            if key.endswith(("epsilon", "freq_base")) and (not isinstance(one, float) or not 0 <= one < math.inf):
                raise ValueError(f"{key} is {one!r}; it must be a finite number, 0 or more")
    layers = keys.get(f"{architecture}.block_count")
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise ValueError(f"{architecture}.block_count is {layers:,}; llama.cpp supports up to {_MOST_LAYERS}")
    drafting = keys.get(f"{architecture}.nextn_predict_layers")
    if isinstance(layers, int) and isinstance(drafting, int) and drafting > layers:
        raise ValueError(f"{architecture}.nextn_predict_layers is {drafting:,}, but the model has {layers} layers")
    heads, shared = (keys.get(f"{architecture}.attention.head_count{end}") for end in ("", "_kv"))
    if isinstance(heads, int) and isinstance(shared, int) and heads and shared and heads % shared:
        raise ValueError(f"{heads} attention heads can't share {shared} key-value heads")


def _check_experts(fields: Fields, architecture: str) -> None:
    experts, used = fields.count("expert_count"), fields.count("expert_used_count")
    groups, used_groups = fields.count("expert_group_count"), fields.count("expert_group_used_count")
    if architecture.startswith("hunyuan") and experts <= 1:
        return
    if experts > _MOST_EXPERTS:
        raise ValueError(f"{architecture}.expert_count is {experts:,}; llama.cpp supports up to {_MOST_EXPERTS:,}")
    if used > experts or (experts and not used):
        raise ValueError(
            f"{architecture}.expert_used_count is {used}, and {architecture}.expert_count is {experts}; it must be "
            + (f"1 to {experts}" if experts else "0 without experts")
        )
    if groups and groups >= experts:
        raise ValueError(f"{architecture}.expert_group_count is {groups} for {experts} experts; it must be less")
    if groups > 1 and (experts % groups or not 0 < used_groups < groups):
        raise ValueError(f"{experts} experts in {groups} groups, of which {used_groups} are used, is impossible")


def _check_tokenizer(keys: Mapping[str, Any]) -> None:
    if keys.get("tokenizer.ggml.model") in ("none", "no_vocab"):
        raise ValueError("it has no tokenizer (tokenizer.ggml.model is 'none')")
    tokens = keys.get("tokenizer.ggml.tokens")
    if tokens is None:
        return
    if not isinstance(tokens, Skipped):
        raise ValueError("tokenizer.ggml.tokens is not a list of strings")
    if tokens.twice is not None:
        text = tokens.twice.decode("utf-8", "replace")
        raise ValueError(f"its vocabulary has the token {text!r:.60} more than once")
    if tokens.longest > _LONGEST_TOKEN:
        raise ValueError(f"its vocabulary has a token of {tokens.longest:,} bytes; the maximum is {_LONGEST_TOKEN:,}")


def _check_type(tensor: TensorInfo) -> None:
    vector = len(tensor.shape) <= 1 or tensor.name.endswith(("_norm.weight", ".bias"))
    if _TABLES in tensor.name:
        return
    if vector and tensor.dtype != "F32":
        raise ValueError(
            f"the tensor {tensor.name!r} is stored as {tensor.dtype}; norms, biases and vectors must be F32"
        )
    if tensor.dtype in _NO_MATRIX:
        raise ValueError(f"the tensor {tensor.name!r} is stored as {tensor.dtype}, which can't be used for weights")
