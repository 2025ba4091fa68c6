"""A model's metadata, read from its files' headers: no tensor data, no engine.

`read_header` reads a GGUF file or a Hugging Face folder and raises a clear error for anything that would make an engine
fail later: wrong format, truncated, a missing part or tensor, no config.json, weights only as pickles.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.errors import BadInputError, LoadError
from llmlab.files import gguf, gguf_checks, jsonfile, safetensors, tags
from llmlab.files.gguf import GgufFile, Skipped, TensorInfo
from llmlab.files.jsonfile import Fields
from llmlab.files.tensors import missing_in_folder, missing_in_gguf
from llmlab.types import Format

_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_DTYPE_TAGS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}


@dataclass(frozen=True, slots=True)
class Header:
    """A model's metadata, from its headers.

    Attributes:
        path: the GGUF file (the first part of a split one), or the folder.
        files: all weight files.
        architecture: `llama` (GGUF's `general.architecture`) or `LlamaForCausalLM` (config.json).
        parameters: number of weights; for packed integers, from the unpacked shapes if known.
        context_length: trained context length in tokens.
        kv_heads: key-value heads (of the layer with most, where layers differ).
        kv_values: KV cache values per token over all layers: sum of kv_heads * (key dim + value dim).
        vocab_size: tokens in its vocabulary.
        quant: the quant tag; `mixed` if the files don't specify a known one.
        tensors: all tensors, of all files.
        weight_bytes: bytes of all tensor data.
        chat_template: Jinja source, or None for a base model.
        tokenizer: `gpt2/gpt-2` (GGUF: model/pre), `BPE` and the like (tokenizer.json's model type), or "".
        tied: whether the output layer shares the embedding's weights.
        metadata: GGUF's keys (large arrays as their length), or config.json.
    """

    path: Path
    format: Format
    files: tuple[Path, ...]
    name: str
    architecture: str
    parameters: int
    context_length: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    kv_values: int
    vocab_size: int
    quant: str
    tensors: tuple[TensorInfo, ...]
    weight_bytes: int
    chat_template: str | None
    licence: str | None
    tokenizer: str
    tied: bool
    metadata: Mapping[str, Any]

    @property
    def is_mixture(self) -> bool:
        """Whether the model is a mixture of experts."""
        inner = self.metadata.get("text_config")
        keys = {**self.metadata, **inner} if isinstance(inner, Mapping) else self.metadata
        counts = (keys.get(name) for name in (*_EXPERT_COUNTS, f"{self.architecture}.expert_count"))
        return any(isinstance(count, int) and count > 1 for count in counts)


def read_header(path: str | Path) -> Header:
    """Read a model's headers and check its files.

    Args:
        path: a GGUF file (any part of a split one) or a Hugging Face folder.

    Raises:
        BadInputError: the path doesn't exist.
        LoadError: the files are damaged or incomplete; the message says what is missing.
        UnsupportedError: the weights are available only as pickles.
    """
    path = Path(path)
    if path.is_dir():
        return _kept(path, _state(sorted(path.iterdir())))
    if path.is_file():
        return _kept(path, _state(gguf.parts(path)))
    raise BadInputError(
        f"There is no file or folder {path}.", "Check the path; relative paths start at the working folder."
    )


def _state(files: Iterable[Path]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and states of files: the key under which a header is cached."""
    return tuple((file.name, gguf.state(file)) for file in files if file.is_file())


@functools.lru_cache(maxsize=32)
def _kept(path: Path, _state: tuple[tuple[str, tuple[int, ...]], ...]) -> Header:
    return _folder(path) if path.is_dir() else _gguf(path)


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        LoadError: it is missing, isn't JSON, or has no architecture.
    """
    file = folder / "config.json"
    if not file.is_file():
        ggufs = sorted(found.name for found in folder.glob("*.gguf"))
        hint = (
            f"It contains GGUF files: load one of them, for example {folder / ggufs[0]}."
            if ggufs
            else "A Hugging Face model folder has config.json next to its weights and tokenizer.json."
        )
        raise LoadError(f"{folder} has no config.json, so it is not a model folder.", hint)
    config = jsonfile.read(file)
    if not any(Fields(config, file).texts("architectures")[:1]):
        hint = "This is a LoRA adapter: load its base model, then add it." if _is_adapter(folder) else ""
        raise LoadError(f"{file} has no architecture.", hint or "Its key 'architectures' must name the model's class.")
    return config


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


# -- GGUF ------------------------------------------------------------------------------------


def _gguf(path: Path) -> Header:
    return of_gguf([gguf.read(file) for file in gguf.parts(path)])


def of_gguf(heads: Sequence[GgufFile]) -> Header:
    """A model's metadata from the headers of its parts, in order; errors as `read_header`."""
    path, keys = heads[0].path, heads[0].keys
    fields = Fields(keys, path)
    tensors = tuple(tensor for head in heads for tensor in head.tensors)
    architecture = fields.text("general.architecture")
    if not architecture:
        raise LoadError(f"{path} has no architecture (general.architecture).", "Convert the model again.")
    if keys.get("general.type", "model") != "model":
        raise LoadError(
            f"{path} is not a model; its type is {keys['general.type']!r}.",
            "Load its base model; adapters attach to that.",
        )
    promised = keys.get("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise LoadError(
            f"{path} should have {promised} tensors, but its parts have {len(tensors)}.", "Download it again."
        )

    own = Fields(keys, path, f"{architecture}.")
    layers, hidden, n_heads = (own.count(key) for key in ("block_count", "embedding_length", "attention.head_count"))
    if not (layers and hidden):
        raise LoadError(f"{path} has no {architecture}.block_count or embedding_length.", "Convert the model again.")
    gguf_checks.check(path, architecture, keys, tensors)
    names = [tensor.name for tensor in tensors]
    _check_missing(path, missing_in_gguf(architecture, layers, names, experts=own.count("expert_count") > 0))
    per_layer = own.counts("attention.head_count_kv")
    kv_heads = max(per_layer, default=n_heads)
    head_dim = own.count("attention.key_length", default=hidden // n_heads if n_heads else 0)
    value_dim = own.count("attention.value_length", default=head_dim)
    total_kv_heads = sum(per_layer) if len(per_layer) > 1 else layers * kv_heads
    tokens = keys.get("tokenizer.ggml.tokens")
    vocab = tokens.length if isinstance(tokens, Skipped) else 0
    model, pre = fields.text("tokenizer.ggml.model") or "", fields.text("tokenizer.ggml.pre") or ""
    # An MLA cache (DeepSeek) has one compressed vector per token and layer instead of keys and values.
    compressed = own.count("attention.kv_lora_rank")
    latent = compressed + own.count("rope.dimension_count")
    mla = bool(compressed) and bool(own.count("attention.key_length_mla"))
    return Header(
        path=path,
        format="gguf",
        files=tuple(head.path for head in heads),
        name=str(keys.get("general.name") or path.stem),
        architecture=architecture,
        parameters=sum(tensor.elements for tensor in tensors if not tensor.name.startswith("rope_freqs")),
        context_length=own.count("context_length"),
        layers=layers,
        hidden=hidden,
        heads=n_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_values=layers * latent if mla else total_kv_heads * (head_dim + value_dim),
        vocab_size=vocab or own.count("vocab_size"),
        quant=_gguf_tag(path, keys, tensors),
        tensors=tensors,
        weight_bytes=sum(tensor.bytes for tensor in tensors),
        chat_template=fields.text("tokenizer.chat_template"),
        licence=licence if isinstance(licence := keys.get("general.license"), str) else None,
        tokenizer=f"{model}/{pre}" if pre else model,
        tied="output.weight" not in names,
        metadata=keys,
    )


def _gguf_tag(path: Path, keys: Mapping[str, Any], tensors: tuple[TensorInfo, ...]) -> str:
    """The tag in the file's metadata, else the one in its name, else the type of most of its bytes."""
    ftype = keys.get("general.file_type")
    found = tags.of_ftype(ftype) if isinstance(ftype, int) else None
    if found is not None:
        return found
    named = tags.in_filename(path.name)
    if named is not None:
        return named
    by_type: dict[str, int] = {}
    for tensor in tensors:
        by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.bytes
    likely = max(by_type, key=lambda kind: by_type[kind], default="")
    return likely if likely in tags.TAGS else "mixed"


# -- a Hugging Face folder ---------------------------------------------------------------------


def _folder(folder: Path) -> Header:
    config = read_config(folder)
    files, tensors = safetensors.read_folder(folder)
    return of_folder(folder, config, files, tensors)


def of_folder(folder: Path, config: dict[str, Any], files: Sequence[Path], tensors: tuple[TensorInfo, ...]) -> Header:
    """A model's metadata from a folder's small files and its weight files' tensors; errors as `read_header`."""
    fields = Fields(config, folder / "config.json")
    architecture = fields.texts("architectures")[0]
    # Multimodal models have the language model's sizes in a nested object.
    inner = fields.table("text_config")
    text = inner if len(inner) else fields
    layers = text.count("num_hidden_layers", "n_layer", "n_layers")
    hidden = text.count("hidden_size", "n_embd", "d_model")
    heads = text.count("num_attention_heads", "n_head")
    if not (layers and hidden):
        raise LoadError(f"{folder / 'config.json'} has no num_hidden_layers or hidden_size.", "Download it again.")
    _check_missing(folder, missing_in_folder(architecture, text, layers, (tensor.name for tensor in tensors)))
    kv_heads = text.count("num_key_value_heads", default=heads)
    head_dim = text.count("head_dim", default=hidden // heads if heads else 0)
    latent = text.count("kv_lora_rank")
    per_layer = latent + text.count("qk_rope_head_dim") if latent else 2 * kv_heads * head_dim
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    return Header(
        path=folder,
        format="safetensors",
        files=tuple(files),
        name=folder.resolve().name,
        architecture=architecture,
        parameters=sum(_unpacked(tensor) for tensor in tensors),
        context_length=_context(folder, text),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_values=layers * per_layer,
        vocab_size=text.count("vocab_size"),
        quant=folder_tag(config, tensors),
        tensors=tensors,
        weight_bytes=sum(tensor.bytes for tensor in tensors),
        chat_template=chat_template(folder),
        licence=_licence(folder),
        tokenizer=_tokenizer(folder),
        tied=tied or not any(tensor.name.startswith("lm_head.") for tensor in tensors),
        metadata=config,
    )


def _context(folder: Path, text: Fields) -> int:
    """The trained context length; for sentence-transformers the most tokens that it reads of a text."""
    positions = text.count("max_position_embeddings", "n_positions", "max_seq_len")
    limit = jsonfile.read_optional(folder / "sentence_bert_config.json").get("max_seq_length")
    return min(positions, limit) if isinstance(limit, int) and limit > 0 and positions else positions


def _unpacked(tensor: TensorInfo) -> int:
    """Number of weights in a tensor: awq and gptq pack eight 4-bit weights into an int32; helper tensors have none."""
    kind = tensor.name.rsplit(".", 1)[-1]
    if kind in ("qweight", "weight_packed"):
        return tensor.elements * (8 if tensor.dtype == "I32" else 1)
    if kind in ("qzeros", "scales", "g_idx", "weight_scale", "weight_zero_point", "weight_shape", "input_scale"):
        return 0
    return tensor.elements


def folder_tag(config: Mapping[str, Any], tensors: tuple[TensorInfo, ...] = ()) -> str:
    """The quant tag of a folder: from `quantization_config`, else the type of most of its weights.

    Args:
        config: config.json.
        tensors: its tensors; without them, the config's `dtype` is used.
    """
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict):
        method = str(quantization.get("quant_method", "")).lower()
        if method == "compressed-tensors":
            return _compressed_tag(quantization)
        known = {"awq": "awq", "gptq": "gptq", "fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "mxfp4"}
        return known.get(method, method or "mixed")
    by_type: dict[str, int] = {}
    for tensor in tensors:
        by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.bytes
    if by_type:
        return _DTYPE_TAGS.get(max(by_type, key=lambda kind: by_type[kind]), "mixed")
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "")
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(dtype, "mixed")


def _compressed_tag(quantization: Mapping[str, Any]) -> str:
    """The tag of llmcompressor's output: 8-bit floats or integers, or 4-bit integers with (awq) or without a zero."""
    groups = Fields(quantization, "quantization_config").table("config_groups")
    for name, group in groups.items():
        if not isinstance(group, dict):  # a preset's name with its modules
            continue
        weights = groups.table(name).table("weights")
        kind, bits = weights.get("type"), weights.get("num_bits")
        if kind == "float" and bits == 8:
            return "fp8"
        if kind == "int" and bits == 8:
            return "int8"
        if kind == "int" and bits == 4:
            return "gptq" if weights.get("symmetric", True) else "awq"
    return "mixed"


def _check_missing(path: Path, missing: list[str]) -> None:
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LoadError(
            f"{path} has no tensor {missing[0]!r}{more}, which its architecture needs.",
            "The files are incomplete: download or convert the model again.",
        )


def chat_template(folder: Path) -> str | None:
    """A folder's chat template by transformers' rule: chat_template.jinja, else tokenizer_config.json's default one.

    Raises:
        LoadError: tokenizer_config.json can't be read.
    """
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8", errors="replace")
    file = folder / "tokenizer_config.json"
    template = jsonfile.read(file).get("chat_template") if file.is_file() else None
    if isinstance(template, list):  # several named ones
        named = {str(entry.get("name")): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default", next(iter(named.values()), None))
    return template if isinstance(template, str) else None


def _licence(folder: Path) -> str | None:
    """The licence in the model card's front matter (`license: apache-2.0`)."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        if file.readline(80).strip() != "---":
            return None
        for _, line in zip(range(200), file, strict=False):
            if line.strip() == "---":
                return None
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("'\"") or None
    return None


def _tokenizer(folder: Path) -> str:
    file = folder / "tokenizer.json"
    if file.is_file():
        model = jsonfile.read(file).get("model")
        return str(model.get("type", "")) if isinstance(model, dict) else ""
    if (folder / "tokenizer.model").is_file():
        return "SentencePiece"
    return "tekken" if (folder / "tekken.json").is_file() else ""
