"""Convert a PEFT adapter to GGUF in process with the `gguf` package; the result is cached.

Keys, names and types match llama.cpp's convert_lora_to_gguf.py, with its default of 32-bit floats.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.adapters.files import AdapterFiles, kind_of
from llmlab.errors import UnsupportedError
from llmlab.files import weights
from llmlab.files.headers import Header
from llmlab.quant.gguf_cache import with_room, write_whole

# Architectures whose projections are permuted (see `_permuted`), and those that keep the checkpoint's row order.
_PERMUTED = ("llama",)
_PLAIN = (
    "qwen2",
    "qwen2vl",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "smollm3",
    "olmo2",
    "starcoder2",
    "mistral3",
    "qwen2moe",
    "qwen3moe",
    "gpt-oss",
    "deepseek2",
)
_PART = re.compile(r"\b(text_model|language_model)\.")


def check(header: Header) -> None:
    """Refuse models whose adapters can't be converted here.

    Args:
        header: the loaded GGUF file's header.

    Raises:
        UnsupportedError: the architecture's tensor layout isn't supported.
    """
    if header.architecture not in (*_PERMUTED, *_PLAIN):
        raise UnsupportedError(
            f"llmlab can't convert adapters for architecture {header.architecture!r} to GGUF.",
            "Convert it with llama.cpp's convert_lora_to_gguf.py and add the GGUF file.",
        )


def gguf_names(header: Header, modules: list[str]) -> dict[str, str | None]:
    """The GGUF tensor of each Hugging Face module; None if the architecture has none.

    Args:
        header: the GGUF file's header.
        modules: module names such as `model.layers.0.self_attn.q_proj`.
    """
    _imports.load("gguf")
    import gguf

    arch = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == header.architecture), None)
    if arch is None:
        return dict.fromkeys(modules)
    names = gguf.get_tensor_name_map(arch, header.layers)

    def name_of(module: str) -> str | None:
        # A vision model's GGUF file has its language model under the names of a model without vision.
        found: str | None = names.get_name(f"{_PART.sub('', module)}.weight", try_suffixes=(".weight",))
        return found

    return {module: name_of(module) for module in modules}


def to_gguf(files: AdapterFiles, header: Header) -> Path:
    """The GGUF file of an adapter, converted now if it isn't in the cache.

    Args:
        files: a PEFT adapter that was checked against the model.
        header: the loaded GGUF file's header.

    Raises:
        UnsupportedError: see `check`.
        LoadError: the disk is full or not writable.
    """
    if files.format == "gguf":
        return files.path
    check(header)
    # The row order depends on the heads, so the base's shape is part of the key.
    shape = f"{files.digest} {header.architecture} {header.layers} {header.heads} {header.kv_heads}"
    key = hashlib.sha256(shape.encode()).hexdigest()[:16]
    target = config.cache_dir() / "adapters" / key / f"{files.path.name or 'adapter'}.gguf"
    if config.is_file(target):
        return target
    needed = sum(4 * (pair.a[0] * pair.a[1] + pair.b[0] * pair.b[1]) for pair in files.modules.values())
    with_room(target, needed)
    return write_whole(target, lambda part: _write(files, header, part))


def _write(files: AdapterFiles, header: Header, target: Path) -> None:
    _imports.load("gguf", "numpy")
    import gguf
    import numpy as np

    logging.getLogger("gguf").setLevel(logging.ERROR)
    names = gguf_names(header, list(files.modules))
    alphas = {pair.scaling * pair.rank for pair in files.modules.values()}
    # llama.cpp scales by one alpha over each matrix's rank. If modules need different alphas, the scale is multiplied
    # into B, and alpha is 0.
    alpha = alphas.pop() if len(alphas) == 1 else 0.0
    writer = gguf.GGUFWriter(None, header.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_string(gguf.Keys.General.NAME, files.path.name)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    data = dict(weights.tensors(files.weights))
    try:
        for module, pair in files.modules.items():
            a, b = (data[name].astype(np.float32) for name in pair.names)
            if not alpha:
                b = b * np.float32(pair.scaling)
            writer.add_tensor(f"{names[module]}.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{names[module]}.lora_b", np.ascontiguousarray(_permuted(module, b, header)))
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _permuted(module: str, b: Any, header: Header) -> Any:
    """Interleave the rows of query and key projections like the base's weights (see llmlab.quant.gguf_writer)."""
    heads = {"q_proj": header.heads, "k_proj": header.kv_heads}.get(kind_of(module))
    if header.architecture not in _PERMUTED or heads is None:
        return b
    return b.reshape(heads, 2, b.shape[0] // heads // 2, b.shape[1]).swapaxes(1, 2).reshape(b.shape)
