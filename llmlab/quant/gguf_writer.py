"""Write a GGUF file from a Hugging Face folder, in process and offline, with the `gguf` package.

Covers the models that llmlab ships and similar ones: LlamaForCausalLM with plain rotary embeddings and a byte-level
BPE with the GPT-2 or SmolLM split, and LLaVA around one. Keys and tensors match llama.cpp's convert_hf_to_gguf.py
(conversion/llama.py), which handles everything else.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.engines.defaults import sampling_defaults
from llmlab.errors import LoadError, UnsupportedError
from llmlab.files import weights
from llmlab.files.headers import Header, chat_template
from llmlab.files.jsonfile import Fields, read_optional
from llmlab.quant import gguf_projector
from llmlab.quant.gguf_vocab import CONVERTER, gpt2_vocab, tokenizer_config
from llmlab.types.progress import Progress

VERSION = 2
"""Part of the cache key; increase it when the output for the same folder changes."""


_EMBEDDING = "model.embed_tokens.weight"
LLAVA = "LlavaForConditionalGeneration"
_INSIDE = ("language_model.", "model.language_model.")  # as published, and as transformers 5 writes it
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16"}


def check(header: Header) -> None:
    """Refuse a folder that can't be converted here.

    Raises:
        UnsupportedError: another architecture, rotary scaling, or a quantized checkpoint.
    """
    config = _config(header)
    if header.architecture == LLAVA:
        gguf_projector.check(header)
        if config.text("model_type") != "llama":
            raise UnsupportedError(f"llmlab can't convert LLaVA with {config.get('model_type')!r:.60}.", CONVERTER)
    elif header.architecture != "LlamaForCausalLM":
        raise UnsupportedError(f"llmlab can't convert {header.architecture} to GGUF.", CONVERTER)
    if header.metadata.get("quantization_config"):
        raise UnsupportedError(
            f"{header.path} is already quantized ({header.quant}); a GGUF is made from the original 16-bit model.",
            "Load it with --engine vllm, or convert the original.",
        )
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in (None, "default"):
        raise UnsupportedError(f"llmlab can't convert rotary scaling {kind!r:.60} to GGUF.", CONVERTER)
    rows = next((t.shape[0] for t in header.tensors if _plain(t.name) == _EMBEDDING and len(t.shape) == 2), 0)
    if rows != header.vocab_size:
        raise LoadError(
            f"{header.path} has an embedding of {rows:,} rows, but vocab_size in its config.json is "
            f"{header.vocab_size:,}.",
            "Fetch the folder again.",
        )
    if not (config.count("intermediate_size") and config.number("rms_norm_eps")):
        raise LoadError(f"{header.path / 'config.json'} lacks intermediate_size or rms_norm_eps.", "Fetch it again.")


def write(header: Header, target: Path, tag: str, progress: Progress | None = None) -> None:
    """Write one GGUF file.

    Args:
        header: the folder's header, which `check` passed.
        target: the file to write; the caller renames it when complete.
        tag: F32, F16 or BF16: the type of the matrices (vectors and norms are always 32-bit floats).
        progress: called with "convert" and the fraction of tensors done.

    Raises:
        UnsupportedError: the tokenizer can't be converted.
        LoadError: a tensor has no counterpart in a Llama GGUF.
    """
    _imports.load("gguf", "numpy")
    import gguf
    import numpy as np

    # The package logs every step as info, and odd merges as warnings: noise in a notebook.
    logging.getLogger("gguf").setLevel(logging.ERROR)
    vocab = gpt2_vocab(header.path, header.vocab_size)
    writer = gguf.GGUFWriter(None, "llama")
    _add_keys(gguf, writer, header, tag, vocab)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, header.layers)
    renamed: dict[str, str] = {}
    for tensor in _ordered(header):
        new_name = names.get_name(_plain(tensor), try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise LoadError(f"{header.path} has a tensor without a counterpart in a Llama GGUF: {tensor!r}.")
        renamed[tensor] = new_name
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for old, new in renamed.items():
        kind = _kind(gguf, new, shapes[old], tag)
        size = {"F32": 4, "F16": 2, "BF16": 2}[kind.name]
        dtype = np.dtype({"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[kind.name])
        count = int(np.prod(shapes[old], dtype=np.int64))
        writer.add_tensor_info(new, shapes[old], dtype, count * size, raw_dtype=kind)
    try:
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done = 0
        for file in header.files:
            for old, data in weights.tensors(file):
                if old not in renamed:
                    continue
                new = renamed[old]
                kind = _kind(gguf, new, shapes[old], tag)
                array = gguf.quants.quantize(np.ascontiguousarray(_permuted(old, data, header)), kind)
                writer.write_tensor_data(array)
                done += 1
                if progress is not None:
                    progress("convert", done / len(renamed))
    finally:
        writer.close()


def _ordered(header: Header) -> list[str]:
    """The names of the tensors to write, in the order of `weights.tensors`."""
    out = []
    for file in header.files:
        out += [name for name in weights.names(file) if not _dropped(name, header)]
    return out


def _plain(name: str) -> str:
    """A tensor's name in the language model alone."""
    for prefix in _INSIDE:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"
    return name


def _dropped(name: str, header: Header) -> bool:
    if header.architecture == LLAVA and not name.startswith((*_INSIDE, "lm_head.")):
        return True  # the encoder's, which are in the projector's file
    # Buffers of old checkpoints, and an output layer that duplicates the tied embedding.
    if name.endswith((".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")):
        return True
    return _plain(name) == "lm_head.weight" and header.tied


def _kind(gguf: Any, name: str, shape: tuple[int, ...], tag: str) -> Any:
    types = gguf.GGMLQuantizationType
    return types.F32 if len(shape) <= 1 or name.endswith("_norm.weight") else types[tag]


def _permuted(name: str, data: Any, header: Header) -> Any:
    """Reorder the rows of query and key projections.

    Hugging Face rotates the halves of a head (i with i + dim/2), llama.cpp's `llama` adjacent rows (2i with 2i + 1).
    The rows of each head are interleaved, as in convert_hf_to_gguf.py's `LlamaModel.permute`.
    """
    if name.endswith(("q_proj.weight", "q_proj.bias")):
        heads = header.heads
    elif name.endswith(("k_proj.weight", "k_proj.bias")):
        heads = header.kv_heads
    else:
        return data
    return data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _config(header: Header) -> Fields:
    """The settings of the language model."""
    fields = Fields(header.metadata, header.path / "config.json")
    return fields.table("text_config") if header.architecture == LLAVA else fields


def _rope(config: Fields) -> Fields:
    """Rotary settings: `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (older)."""
    found = dict(config.table("rope_parameters") or config.table("rope_scaling"))
    if "rope_theta" not in found and config.get("rope_theta") is not None:
        found["rope_theta"] = config["rope_theta"]
    return Fields(found, "config.json")


def _add_keys(gguf: Any, writer: Any, header: Header, tag: str, vocab: Any) -> None:
    config = _config(header)
    writer.add_type("model")
    # Name, licence and tags come from the model card and folder name.
    metadata = gguf.Metadata.load(None, header.path, None, header.parameters)
    # The package takes values of any type from generation_config.json, and sampled ones if it says do_sample: false.
    own = sampling_defaults(read_optional(header.path / "generation_config.json"), header.vocab_size)
    for name in [name for name in vars(metadata) if name.startswith("sampling_")]:
        setattr(metadata, name, None)
    metadata.sampling_temp, metadata.sampling_top_p, metadata.sampling_top_k = own.temperature, own.top_p, own.top_k
    metadata.sampling_min_p, metadata.sampling_penalty_repeat = own.min_p, own.repetition_penalty
    metadata.size_label = metadata.size_label or gguf.size_label(header.parameters, header.parameters, 0, 0)
    metadata.set_gguf_meta_model(writer)
    writer.add_block_count(header.layers)
    writer.add_context_length(header.context_length)
    writer.add_embedding_length(header.hidden)
    writer.add_feed_forward_length(config.count("intermediate_size"))
    writer.add_head_count(header.heads)
    writer.add_head_count_kv(header.kv_heads)
    theta = _rope(config).number("rope_theta")
    if theta:
        writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    if config.get("head_dim") is not None:
        writer.add_key_length(header.head_dim)
        writer.add_value_length(header.head_dim)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[tag]])
    writer.add_vocab_size(header.vocab_size)
    writer.add_rope_dimension_count(header.head_dim)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    prefix = tokenizer_config(header.path).get("add_prefix_space")
    if prefix is not None:
        writer.add_add_space_prefix(bool(prefix))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    special = gguf.SpecialVocab(header.path, load_merges=True, n_vocab=header.vocab_size)
    # The package prefers tokenizer_config.json over chat_template.jinja; transformers does the opposite.
    special.chat_template = chat_template(header.path) or special.chat_template
    special.add_to_gguf(writer, quiet=True)
