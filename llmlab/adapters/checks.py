"""Check from the headers whether an adapter fits a loaded model, before it is passed to the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from llmlab.adapters import conversion
from llmlab.adapters.files import AdapterFiles, kind_of
from llmlab.engines.base import LoraLimits
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.files.headers import Header
from llmlab.files.source import Source

# The projections that both engines apply adapters to; the GGUF names are llama.cpp's for the same ones.
TARGETS = frozenset(
    [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "qkv_proj",
        "gate_up_proj",
        "dense",
        "fc1",
        "fc2",
        "c_fc",
        "c_proj",
    ]
)
GGUF_TARGETS = frozenset(
    ["attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output", "token_embd"]
)


def check(files: AdapterFiles, header: Header, limits: LoraLimits, engine: str, model: str) -> None:
    """Refuse an adapter that doesn't fit the model or the engine.

    Args:
        files: the adapter.
        header: the loaded model's header.
        limits: the engine's LoRA limits.
        engine: the engine's name.
        model: the model's name, for messages.

    Raises:
        UnsupportedError: the engine doesn't support it.
        BadInputError: it was made for another base model; both are named.
    """
    name = files.path.name
    if limits.refused:
        raise UnsupportedError(f"{name} can't be attached to {model}: {limits.refused}.", limits.hint)
    if files.format == "gguf" and limits.form == "peft":
        raise UnsupportedError(
            f"{name} is a GGUF adapter, but {engine} takes PEFT folders.",
            "Add the PEFT folder that it was converted from, or load the model with --engine llamacpp.",
        )
    known = GGUF_TARGETS if files.format == "gguf" else TARGETS
    strange = [target for target in files.targets if target not in known]
    if strange:
        raise UnsupportedError(
            f"{name} changes {', '.join(strange)}, to which {engine} doesn't apply adapters "
            f"(supported: {', '.join(sorted(known))}).",
            "Train it on those modules, or merge it into the weights (%llm lora merge).",
        )
    if limits.max_rank is not None and files.rank > limits.max_rank:
        raise UnsupportedError(
            f"{name} has rank {files.rank}, but {model} was loaded in {engine} with a limit of rank {limits.max_rank}.",
            f"Load the model with -x max_lora_rank={files.rank}.",
        )
    _check_base(files, header, model)


def _check_base(files: AdapterFiles, header: Header, model: str) -> None:
    made_for = f"{files.path.name} was made for {files.base}" if files.base else f"{files.path.name} was made"
    hint = f"Load {files.base}, or add an adapter of {model}." if files.base else f"Add an adapter of {model}."
    if files.architecture and files.architecture != header.architecture:
        raise BadInputError(
            f"{made_for} with architecture {files.architecture!r}; {model} has {header.architecture!r}.", hint
        )
    names = _tensor_names(files, header)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    missing = [module for module, tensor in names.items() if tensor is None or not _known(tensor, shapes)]
    if missing:
        layers = _layers(files.modules)
        more = f" (it has {layers} layers, {model} has {header.layers})" if layers > header.layers else ""
        raise BadInputError(
            f"{made_for} and changes {missing[0]}, which {model} ({header.architecture}) doesn't have{more}.", hint
        )
    for module, pair in files.modules.items():
        has = _shape(names[module], shapes, header)
        expected = (pair.b[0], pair.a[1])
        if "token_embd" in module or has is None:
            continue
        if has != expected:
            raise BadInputError(
                f"{made_for}, where {module} is {expected[0]} x {expected[1]}; in {model} it is {has[0]} x {has[1]}.",
                hint,
            )


def _tensor_names(files: AdapterFiles, header: Header) -> dict[str, str | None]:
    """The model's tensor for each of the adapter's modules."""
    if files.format == "gguf":
        return {module: module for module in files.modules}
    if header.format == "gguf":
        conversion.check(header)
        found = conversion.gguf_names(header, list(files.modules))
        return {
            module: f"{name}.weight" if name and not name.endswith(".weight") else name
            for module, name in found.items()
        }
    return {module: f"{module}.weight" for module in files.modules}


def _known(tensor: str | None, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    # Packed checkpoints (AWQ, GPTQ, compressed-tensors) use other suffixes.
    stem = (tensor or "").removesuffix(".weight")
    return any(f"{stem}.{suffix}" in shapes for suffix in ("weight", "qweight", "weight_packed"))


def _shape(tensor: str | None, shapes: Mapping[str, tuple[int, ...]], header: Header) -> tuple[int, int] | None:
    """(outputs, inputs) of a module: from its tensor, or from the configuration if the tensor is packed."""
    found = shapes.get(tensor or "")
    if found is not None and len(found) == 2:
        return (found[0], found[1])
    wide = header.metadata.get("intermediate_size")
    queries, keys = header.heads * header.head_dim, header.kv_heads * header.head_dim
    known = {"q_proj": (queries, header.hidden), "k_proj": (keys, header.hidden), "v_proj": (keys, header.hidden)}
    known["o_proj"] = (header.hidden, queries)
    if isinstance(wide, int):
        known |= {
            "gate_proj": (wide, header.hidden),
            "up_proj": (wide, header.hidden),
            "down_proj": (header.hidden, wide),
        }
    return known.get(kind_of(tensor or ""))


def _layers(modules: Mapping[str, object]) -> int:
    numbers = [int(found.group(1)) for name in modules if (found := re.search(r"\.(\d{1,6})\.", f".{name}"))]
    return max(numbers, default=-1) + 1


def other_name(files: AdapterFiles, source: Source) -> str:
    """A warning if the adapter's base has the same shape but another name; "" if they agree or can't be compared.

    Names are compared by their last part, without format and quant suffixes.
    """
    if not files.base:
        return ""
    spec = source.spec.removeprefix("hf:").split("@")[0]
    places = [source.name, spec, source.path.name, source.base.name if source.base else ""]
    mine = {_plain(one) for one in places if one}
    wanted = _plain(files.base)
    if any(wanted == one or one.startswith(wanted) or wanted.startswith(one) for one in mine if one):
        return ""
    return (
        f"{files.path.name} was made for {files.base} according to its metadata; it is attached to {source.name}, "
        "which has the same shape. If that is a different model, the answers will be poor."
    )


def _plain(name: str) -> str:
    last = Path(name.rstrip("/")).name.lower().removesuffix(".gguf")
    return re.sub(r"[-_.]?(gguf|awq|gptq|fp8|int8|w4a16|w8a8|f16|bf16|f32|i?q\d\w*)(?=[-_.]|$)", "", last)
