"""Make a Hugging Face folder from the GGUF file of a Llama: the inverse of `gguf_writer`.

vLLM loads no GGUF files. For a model that is at hand only as GGUF, the quantized weights are expanded to 16 bits once
and kept in the cache. Only what `gguf_vocab` can convert in both directions is accepted, and the folder's token ids are
compared with llama.cpp's before it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.errors import LoadError, UnsupportedError
from llmlab.files.headers import Header
from llmlab.quant import gguf_tokens, int8
from llmlab.quant.gguf_cache import with_room
from llmlab.quant.gguf_vocab import CONTROL, PRE_TOKENIZERS, USER_DEFINED
from llmlab.quant.vllm_forms import NOTE, install
from llmlab.types.progress import Progress

VERSION = 1
"""Part of the cache key; increase it when the output for the same file changes."""

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"^blk\.(\d+)\.(\w+)\.weight$")


def place_of(file: Path, name: str) -> Path:
    """The cache folder of a GGUF file's folder, named by a digest of the file's first MiB, size and time.

    A folder that was made under another name is used again.
    """
    stat = file.stat()
    with file.open("rb") as handle:
        key = hashlib.sha256(f"llmlab folder {VERSION} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        key.update(handle.read(2**20))
    home = config.cache_dir() / "checkpoints" / key.hexdigest()[:16]
    made = next(iter(config.matching(home, "*-bf16/config.json")), None)
    return made.parent if made is not None else home / f"{name}-bf16"


def of(header: Header, name: str, progress: Progress | None = None) -> Path:
    """The folder of a GGUF file in the cache, written now if it isn't there.

    Args:
        header: the GGUF file's header.
        name: the model's name, for a new folder.
        progress: as in `make`.

    Raises:
        as `make`.
    """
    return make(header, place_of(header.path, name), progress)


def make(header: Header, target: Path, progress: Progress | None = None) -> Path:
    """Write the folder, or return the one that exists.

    Args:
        header: the GGUF file's header.
        target: the folder, as `place_of` names it.
        progress: called with "dequantize" and the fraction of tensors done.

    Raises:
        UnsupportedError: not a plain Llama in one file with a known byte-level BPE, or its token ids differ.
        LoadError: the disk is full.
    """
    if config.is_file(target / "config.json"):
        return target
    with_room(target, header.parameters * 2)
    with config.writing(target, error=LoadError):
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            _write(header, part, progress)
            gguf_tokens.check(header.path, part)
            part.chmod(0o755)
            return install(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _write(header: Header, folder: Path, progress: Progress | None) -> None:
    _imports.load("gguf", "numpy")
    import gguf

    reader = gguf.GGUFReader(header.path)

    def key(name: str, default: Any = None) -> Any:
        field = reader.get_field(name)
        return default if field is None else field.contents()

    reason = _why_not(header, key)
    if reason is not None:
        raise UnsupportedError(f"{header.path.name} can't be expanded to a folder: {reason}.")
    _write_tokenizer(header, folder, key)
    _write_config(header, folder, key)
    _write_weights(header, reader.tensors, folder / "model.safetensors", progress)


def _why_not(header: Header, key: Callable[..., Any]) -> str | None:
    """Why a file can't be expanded, or None: what `_write_config` can't state would be lost silently."""
    if len(header.files) > 1:
        return f"it is split into {len(header.files)} files"
    architecture = key("general.architecture")
    if architecture != "llama" or key("llama.expert_count"):
        experts = " with experts" if key("llama.expert_count") else ""
        return f"its architecture is {architecture}{experts}, not a plain llama"
    scaling = key("llama.rope.scaling.type")
    if scaling not in (None, "none"):
        return f"its positions are scaled ({scaling})"
    rotated = key("llama.rope.dimension_count", header.head_dim)
    if rotated != header.head_dim:
        return f"it rotates {rotated} of {header.head_dim} dimensions"
    return None


def _write_weights(header: Header, tensors: Any, file: Path, progress: Progress | None) -> None:
    _imports.load("gguf", "numpy")
    import gguf
    import numpy as np

    names = {tensor.name: _renamed(header, tensor.name) for tensor in tensors}
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        size = 2 * int(np.prod(shape, dtype=np.int64))
        entries[names[tensor.name]] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for done, tensor in enumerate(tensors, 1):
            values = np.ascontiguousarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            out.write(int8.bf16(np, np.ascontiguousarray(_unpermuted(header, tensor.name, values))).tobytes())
            if progress is not None:
                progress("dequantize", done / len(tensors))


def _renamed(header: Header, name: str) -> str:
    block = _BLOCK.match(name)
    if block is not None and block[2] in _LAYER:
        return f"model.layers.{block[1]}.{_LAYER[block[2]]}.weight"
    if name in _TOP:
        return _TOP[name]
    raise UnsupportedError(f"{header.path.name} can't be expanded to a folder: its tensor {name!r} has no counterpart.")


def _unpermuted(header: Header, name: str, data: Any) -> Any:
    """Undo the reordering of query and key rows; see `gguf_writer._permuted`."""
    heads = {"attn_q.weight": header.heads, "attn_k.weight": header.kv_heads}.get(
        name.partition(".")[2].partition(".")[2]
    )
    if heads is None:
        return data
    return data.reshape(heads, data.shape[0] // heads // 2, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _write_config(header: Header, folder: Path, key: Any) -> None:
    theta = float(key("llama.rope.freq_base", 10000.0))
    end = key("tokenizer.ggml.eos_token_id")
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": header.hidden,
        "intermediate_size": int(key("llama.feed_forward_length")),
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "num_key_value_heads": header.kv_heads,
        "head_dim": header.head_dim,
        "vocab_size": header.vocab_size,
        "max_position_embeddings": header.context_length,
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rms_norm_eps": float(f"{key('llama.attention.layer_norm_rms_epsilon'):.6g}"),  # 1e-5, not its 32-bit neighbour
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": header.tied,
        "bos_token_id": key("tokenizer.ggml.bos_token_id"),
        "eos_token_id": end,
        "pad_token_id": key("tokenizer.ggml.padding_token_id"),
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    generation = {"eos_token_id": end, "bos_token_id": settings["bos_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    note = {"base": "", "by": f"llmlab, from {header.path.name}", "scheme": f"{header.quant} expanded to bf16"}
    (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(header: Header, folder: Path, key: Any) -> None:
    kind, pre = key("tokenizer.ggml.model"), key("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise UnsupportedError(
            f"{header.path.name} can't be expanded to a folder: its tokenizer is {kind}/{pre}, and llmlab knows "
            f"{', '.join(f'gpt2/{name}' for name in PRE_TOKENIZERS)}."
        )
    tokens, types = key("tokenizer.ggml.tokens"), key("tokenizer.ggml.token_type")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": token, **plain, "special": kind == CONTROL}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {token: number for number, token in enumerate(tokens)}, "merges": key("tokenizer.ggml.merges"),
    }  # fmt: skip
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[pre], "post_processor": None, "decoder": decoder, "model": model,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")

    def named(name: str) -> str | None:
        number = key(f"tokenizer.ggml.{name}_token_id")
        return None if number is None else str(tokens[number])

    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(key("tokenizer.ggml.add_bos_token", default=False)),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.context_length,
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "unk_token": named("unknown"),
        "pad_token": named("padding"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if header.chat_template:
        (folder / "chat_template.jinja").write_text(header.chat_template, encoding="utf-8")
