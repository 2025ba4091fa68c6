"""Whether llama.cpp's flash attention pays on this machine's x86 CPU, by a measurement that is kept in the cache.

llama.cpp's (0.3.36) goes through the context cell by cell for a step with few tokens. How fast that is depends on the
CPU, in a way that its features don't show. Speed relative to that without it (`llama-bench`, SmolLM2 Q4_1), a sequence
at 16, 512 and 2,000 tokens of context, and 16 sequences at 128: on an Intel Xeon with AMX 1.07, 0.69, 0.51 and 0.96;
on an AMD EPYC with AVX-512 1.10, 1.07, 1.11 and 1.22.
"""

from __future__ import annotations

import functools
import math
import platform
import time
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.engines.llamacpp import amx, measured
from llmlab.engines.llamacpp.context import NativeContext
from llmlab.engines.llamacpp.logs import router
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.errors import LlmLabError

# The shape of nano: with it the two machines are far apart, 0.46 and 0.92.
_LAYERS, _HIDDEN, _HEADS, _KV_HEADS, _HEAD, _FEED, _VOCABULARY = 6, 256, 4, 2, 64, 768, 2048
_LEAST = 0.7
_KIND = "flash-attention"
_TOKENS, _STEPS, _ROUNDS = 512, 4, 8
_KEY = (_TOKENS,)


class _Nowhere:
    """Drops llama.cpp's messages about the model that is measured."""

    def write(self, text: str) -> None:
        """Drop text."""


def pays() -> bool:
    """Whether to use flash attention by default. The first call on an x86 machine measures it (0.3 s)."""
    if not _is_x86():
        return True
    speed = _kept()
    if speed is None:
        try:
            speed = _ratio()
        except (OSError, MemoryError, LlmLabError):  # no temporary folder, no memory: the load itself says so
            return False
        measured.write(_KIND, _KEY, {"speed": round(speed, 3)})
    return speed >= _LEAST


def known_to_pay() -> bool:
    """The same without measuring: False if it wasn't measured on this machine before."""
    return not _is_x86() or (_kept() or 0.0) >= _LEAST


def _kept() -> float | None:
    speed = measured.read(_KIND, _KEY).get("speed")
    return speed if isinstance(speed, float) and 0 < speed < math.inf else None


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@functools.cache
def _ratio() -> float:
    """Time a step of one token after `_TOKENS` tokens, with and without, in turn; the ratio of the fastest of each."""
    import llama_cpp

    with config.scratch() as folder, router().to(_Nowhere()):
        file = folder / "attention.gguf"
        _write(file)
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers, params.use_extra_bufts = 0, not amx.crashes()
        model = NativeModel(file, params, lambda _: True)
        contexts: list[NativeContext] = []
        try:
            contexts += [NativeContext(model, _params(flash)) for flash in (0, 1)]
            for context in contexts:
                _decode(context, range(_TOKENS))
            fastest = [float("inf")] * 2
            for number in range(_ROUNDS):
                for which in (0, 1) if number % 2 else (1, 0):
                    fastest[which] = min(fastest[which], _seconds(contexts[which]))
        finally:
            for context in contexts:
                context.free()
            model.free()
    return fastest[0] / fastest[1]


def _params(flash: int) -> Any:
    import llama_cpp

    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = _TOKENS + 64, _TOKENS, _TOKENS, 1
    # One thread: two wait for each other, which says more about the other processes than about the kernels.
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type, params.no_perf = flash, True
    return params


def _decode(context: NativeContext, positions: range) -> None:
    for place, position in enumerate(positions):
        context.tokens[place], context.positions[place], context.sequences[place] = position % _VOCABULARY, position, 0
        context.outputs[place] = place == len(positions) - 1
    code = context.decode(len(positions))
    if code:
        raise OSError(f"llama_decode returned {code}")


def _seconds(context: NativeContext) -> float:
    start = time.perf_counter()
    for position in range(_TOKENS, _TOKENS + _STEPS):
        _decode(context, range(position, position + 1))
    passed = time.perf_counter() - start
    context.drop(0, _TOKENS)
    return passed


def _write(file: Path) -> None:
    """A llama model with random weights and no tokenizer."""
    _imports.load("gguf", "numpy")
    import gguf
    import numpy as np

    values, keys = _HEADS * _HEAD, _KV_HEADS * _HEAD
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(_LAYERS)
    writer.add_context_length(2 * _TOKENS)
    writer.add_embedding_length(_HIDDEN)
    writer.add_feed_forward_length(_FEED)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HEAD)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(_VOCABULARY)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (_VOCABULARY, _HIDDEN), "output_norm": (_HIDDEN,)}
    for layer in range(_LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (_HIDDEN,), "attn_q": (values, _HIDDEN), "attn_k": (keys, _HIDDEN),
                "attn_v": (keys, _HIDDEN), "attn_output": (_HIDDEN, values), "ffn_norm": (_HIDDEN,),
                "ffn_gate": (_FEED, _HIDDEN), "ffn_up": (_FEED, _HIDDEN), "ffn_down": (_HIDDEN, _FEED),
            }.items()
        }  # fmt: skip
    for name, shape in shapes.items():
        kind = np.float16 if len(shape) > 1 else np.float32
        writer.add_tensor(f"{name}.weight", (random.standard_normal(shape) * 0.05).astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
