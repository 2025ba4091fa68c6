"""Whether a model fits into memory: an estimate from its headers, compared with the free memory.

    total = weights + KV cache + overhead

weights: the bytes of all tensors, as the headers list them.
KV cache: one key and one value per token, layer and key-value head,
    layers * kv_heads * head_dim * tokens * (bytes_per_key_value + bytes_per_value_value)
    (Pope et al., "Efficiently Scaling Transformer Inference", arXiv:2211.05102, section 3.3; summed over layers
        if they differ: Header.kv_values). Sliding-window layers are counted in full: an upper bound.
    overhead: the engine's other memory, from the constants below.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from llmlab.errors import DoesNotFitError
from llmlab.files import tags
from llmlab.files.headers import Header
from llmlab.machine import memory
from llmlab.machine.memory import Device
from llmlab.render import units
from llmlab.types import FORMATS, EngineName
from llmlab.types.parallel import Parallel

_MIB = 2**20
# llama.cpp, measured by bench/fit.py on nano, SmolLM2 and a vocabulary of 262,144 tokens: a loaded model; each of its
# sequences; the tables of the vocabulary. The library is imported before the estimate.
_LLAMACPP_BASE = 8 * _MIB
_LLAMACPP_SEQUENCE = _MIB // 2
_LLAMACPP_TOKEN = 190
_LLAMACPP_MERGED_TOKEN = 550  # byte-level BPE, with the tables of its merges
# vLLM on the CPU, measured for 0.32 by bench/fit.py: importing it (with torch) once per process; an eager engine; its
# tokenizer; packed copies of weights, and buffers, as far as models of up to 260 MB show.
_VLLM_IMPORT = 700 * _MIB
_VLLM_ENGINE = 41 * _MIB
_VLLM_TOKEN = 1400
_VLLM_PACKED, _VLLM_PACKED_MOST = 0.7, 192 * _MIB
# vLLM on a GPU: the CUDA context, kernel workspaces and captured graphs.
_VLLM_GPU = 1024 * _MIB
# The CUDA context of vLLM's core, which its `gpu_memory_utilization` leaves out: 0.70 GiB, measured on an H100 (driver
# 580, vLLM 0.33).
CUDA_CONTEXT = 720 * _MIB
# Bytes per KV value by cache type; for quantized types from llama.cpp's block sizes.
CACHE_BYTES: dict[str, float] = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "fp8": 1.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32,
}  # fmt: skip
# Share of the free memory that must stay free.
HEADROOM = 0.03


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a load's options say about memory; an engine reads them from its options (`Engine.sizes`).

    Attributes:
        cache_k: type of the KV cache's keys, one of `CACHE_BYTES`.
        cache_v: type of its values.
        kv_tokens: tokens in one KV pool for all sequences; None: a full context each.
        step_tokens: most tokens computed at once.
        flash: flash attention, which keeps no attention scores in memory.
        drafted: most drafted tokens per sequence and step.
        draft: the draft model's header.
        projector: bytes of the projector of a vision model.
        parallel: how the model is spread over GPUs.
    """

    cache_k: str = "f16"
    cache_v: str = "f16"
    kv_tokens: int | None = None
    step_tokens: int = 512
    flash: bool = True
    drafted: int = 0
    draft: Header | None = None
    projector: int = 0
    parallel: Parallel = field(default_factory=Parallel)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory that a model needs, and the free memory, in bytes.

    Attributes:
        kv_cache: for `kv_tokens` tokens, over all sequences.
        context_length: maximum tokens per sequence.
        max_concurrency: maximum number of concurrent sequences.
        free: bytes free on `device` at the time of the estimate.
        suggestions: what would fit instead, one line each; empty if it fits.
        capacity: total bytes of `device`.
        corrected: what earlier loads on this machine changed, in words; their share is part of the overhead.
        correction: its bytes.
        adapters: bytes of the adapters that were attached after the load.
    """

    name: str
    weights: int
    kv_cache: int
    overhead: int
    free: int
    device: str
    context_length: int
    max_concurrency: int
    kv_tokens: int
    suggestions: tuple[str, ...] = ()
    capacity: int = 0
    corrected: str = ""
    correction: int = 0
    adapters: int = 0

    @property
    def total(self) -> int:
        """Weights, KV cache, overhead and adapters."""
        return self.weights + self.kv_cache + self.overhead + self.adapters

    @property
    def fits(self) -> bool:
        """Whether it fits, with some memory to spare."""
        return self.total <= self.free * (1 - HEADROOM)

    def __str__(self) -> str:
        adapters = f" + adapters {units.size(self.adapters)}" if self.adapters else ""
        return (
            f"{units.size(self.total)} (weights {units.size(self.weights)} + KV cache {units.size(self.kv_cache)} for "
            f"{self.kv_tokens:,} tokens + overhead {units.size(self.overhead)}{adapters}{self.corrected}), "
            f"{units.size(self.free)} free on {self.device}"
        )


def kv_bytes(header: Header, tokens: int, cache: str = "f16", values: str | None = None) -> int:
    """Bytes of the KV cache for a number of tokens.

    Args:
        header: the model's header.
        tokens: over all sequences.
        cache: type of its keys, and of its values: f32, f16, bf16, fp8, q8_0, q5_1, q5_0, q4_1 or q4_0.
        values: type of its values, if it is another one.
    """
    return int(header.kv_values * tokens * (CACHE_BYTES[cache] + CACHE_BYTES[values or cache]) / 2)


def overhead_bytes(
    header: Header,
    engine: EngineName,
    kv_tokens: int,
    sequences: int = 1,
    sizes: Sizes | None = None,
    *,
    on_gpu: bool = False,
) -> int:
    """The engine's memory besides weights and KV cache.

    llama.cpp's compute buffer, measured on nano and SmolLM2: for the tokens of a step, activations (4 * hidden and 3 *
    feed-forward size) as 32-bit floats, and the attention mask as 16-bit ones, for the cells that a token can see.
    Without flash attention, the mask has 32 bits, and each head's scores can need more than the feed-forward part.
    Logits exist only for the tokens that are sampled from, twice.

    Args:
        header: the model's header.
        engine: the engine that loads it.
        kv_tokens: tokens in the KV cache over all sequences.
        sequences: the number of sequences.
        sizes: what the load's options say.
        on_gpu: whether it runs on a GPU.
    """
    if FORMATS[engine] == "gguf":
        sizes = sizes or Sizes()
        seen = kv_tokens if sizes.kv_tokens is not None else kv_tokens // sequences
        feed = 3 * _feed(header) + 4 * header.hidden
        step = 4 * feed + 2 * seen if sizes.flash else 4 * max(feed, header.heads * seen + 6 * header.hidden) + 4 * seen
        logits = 4 * header.vocab_size * sequences * (1 + sizes.drafted)
        base = _llamacpp_base(sequences) + _llamacpp_tables(header)
        return base + max(sizes.step_tokens * step, logits) + logits
    if on_gpu:
        return _VLLM_GPU * (sizes.parallel.per_copy if sizes is not None else 1)
    packed = min(int(_VLLM_PACKED * header.weight_bytes), _VLLM_PACKED_MOST)
    own = _VLLM_ENGINE + _VLLM_TOKEN * header.vocab_size
    if sizes is not None and sizes.parallel.per_copy > 1:  # a core, and a worker for each part
        return (1 + sizes.parallel.per_copy) * (_VLLM_IMPORT + own) + packed
    return own + packed + (0 if "vllm" in sys.modules else _VLLM_IMPORT)


def adapter_graph(header: Header, step_tokens: int) -> int:
    """What an adapter adds to llama.cpp's compute buffer: the product of its matrices and its scaled copy, for a step.

    Args:
        header: the model's header.
        step_tokens: most tokens computed at once.
    """
    return 2 * 4 * _feed(header) * step_tokens


def _llamacpp_base(sequences: int) -> int:
    return _LLAMACPP_BASE + _LLAMACPP_SEQUENCE * sequences


def _llamacpp_tables(header: Header) -> int:
    merged = header.metadata.get("tokenizer.ggml.model") == "gpt2"
    return (_LLAMACPP_MERGED_TOKEN if merged else _LLAMACPP_TOKEN) * header.vocab_size


def _feed(header: Header) -> int:
    """The feed-forward size: the largest dimension of a layer's matrices."""
    sizes = [
        max(tensor.shape[:2])
        for tensor in header.tensors
        if len(tensor.shape) >= 2 and header.vocab_size not in tensor.shape
    ]
    return max(sizes, default=4 * header.hidden)


def estimate(
    header: Header,
    *,
    engine: EngineName,
    context_length: int | None = None,
    max_concurrency: int = 1,
    kv_tokens: int | None = None,
    sizes: Sizes | None = None,
    gpu: bool | None = None,
    device: Device | None = None,
    quants: Iterable[str] = (),
    reserved: int = 0,
) -> Estimate:
    """Estimate the memory that a model needs when its KV cache is full.

    Args:
        header: its header.
        engine: the engine that loads it.
        context_length: maximum tokens per sequence; None for the trained length.
        max_concurrency: maximum number of concurrent sequences.
        kv_tokens: tokens in the KV cache over all sequences; None: as `sizes` says.
        sizes: what the load's options say about memory.
        gpu: whether it runs on the GPU; None uses the GPU if there is one.
        device: the device, if already known.
        quants: the model's available tags, for the suggestions; empty for all of the engine's tags.
        reserved: bytes that the engine sets aside for adapters; part of the overhead.

    Returns:
        The estimate, with suggestions when it doesn't fit.
    """
    sizes = sizes or Sizes()
    where = device or memory.device(gpu=gpu, count=sizes.parallel.per_copy)
    context = context_length or header.context_length or 4096
    on_gpu = where.name != "CPU"
    if kv_tokens is not None:
        sizes = replace(sizes, kv_tokens=kv_tokens)
    weights, kv, over, tokens = _parts(header, engine, context, max_concurrency, sizes, on_gpu)
    out = Estimate(
        header.name, weights, kv, over + reserved, where.free, where.name, context, max_concurrency, tokens,
        capacity=where.total,
    )  # fmt: skip
    if out.fits:
        return out
    return replace(out, suggestions=_suggestions(header, out, engine, sizes, tuple(quants), on_gpu))


def correct(found: Estimate, factor: float, n: int) -> Estimate:
    """An estimate corrected by what earlier loads took.

    Args:
        found: the estimate.
        factor: the measured memory relative to the estimated, 1 or more.
        n: the number of loads that say so.
    """
    more = int(found.total * (factor - 1))
    if not more:
        return found
    words = f", {factor - 1:.0%} of all for what {n} loads on this machine took"
    return replace(found, overhead=found.overhead + more, corrected=words, correction=more)


def _parts(
    header: Header, engine: EngineName, context: int, sequences: int, sizes: Sizes, on_gpu: bool
) -> tuple[int, int, int, int]:
    """Bytes of weights, KV cache and overhead, and the tokens in the KV cache."""
    tokens = sizes.kv_tokens if sizes.kv_tokens is not None else context * sequences
    weights, kv = header.weight_bytes + sizes.projector, kv_bytes(header, tokens, sizes.cache_k, sizes.cache_v)
    more, repeats = spread(header, sizes.parallel)
    weights, kv = int(weights * more), int(kv * more * repeats)
    over = overhead_bytes(header, engine, tokens, sequences, sizes, on_gpu=on_gpu)
    if sizes.draft is not None:
        own = replace(sizes, draft=None, drafted=0, projector=0)
        drafts = _parts(sizes.draft, engine, context, sequences, own, on_gpu)
        # The engine's base is there once.
        base = _llamacpp_base(sequences) if FORMATS[engine] == "gguf" else drafts[2]
        weights, kv, over = weights + drafts[0], kv + drafts[1], over + drafts[2] - base
    return weights, kv, over, tokens


def spread(header: Header, parallel: Parallel) -> tuple[float, float]:
    """By how much a split makes weights and KV cache larger, counted over all GPUs of a copy.

    The GPU with the most layers decides: ceil(layers / pp) * pp / layers. And a GPU has at least one key-value head:
    with more GPUs than heads, each is repeated tp / heads times.

    Args:
        header: the model's header.
        parallel: the split.

    Returns:
        The factor for the layers, and the one for the keys and values of a layer.
    """
    layers = header.layers or parallel.pipeline
    deepest = -(-layers // parallel.pipeline) * parallel.pipeline / layers
    return deepest, max(parallel.tensor / (header.kv_heads or parallel.tensor), 1.0)


def longest_context(
    header: Header, found: Estimate, engine: EngineName, sizes: Sizes | None = None, on_gpu: bool = False
) -> int:
    """The longest context, a multiple of 256, with which a model fits; 0 if none does.

    Args:
        header: the model's header.
        found: its estimate, with the number of sequences and the free memory.
        engine: the engine that loads it.
        sizes: what the load's options say about memory.
        on_gpu: whether it runs on a GPU.
    """
    sizes = sizes or Sizes()
    share = found.kv_tokens / found.context_length
    low, high = 0, min(found.context_length, header.context_length or found.context_length) // 256
    while low < high:
        middle = (low + high + 1) // 2
        of_pool = sizes if sizes.kv_tokens is None else replace(sizes, kv_tokens=int(middle * 256 * share))
        needed = sum(_parts(header, engine, middle * 256, found.max_concurrency, of_pool, on_gpu)[:3])
        if needed <= found.free * (1 - HEADROOM):
            low = middle
        else:
            high = middle - 1
    return low * 256


def _suggestions(
    header: Header, found: Estimate, engine: EngineName, sizes: Sizes, quants: tuple[str, ...], on_gpu: bool
) -> tuple[str, ...]:
    out = []
    context = longest_context(header, found, engine, sizes, on_gpu)
    if context:
        out.append(f"--ctx {context}")
    if found.max_concurrency > 1:
        one = replace(sizes, kv_tokens=None)
        needed = sum(_parts(header, engine, found.context_length, 1, one, on_gpu)[:3])
        if needed <= found.free * (1 - HEADROOM):
            out.append("one sequence at a time (max_concurrency=1)")
    smaller = smaller_quant(header, found, engine, quants)
    if smaller is not None:
        out.append(f"--quant {smaller}")
    return tuple(out)


def smaller_quant(header: Header, found: Estimate, engine: EngineName, quants: tuple[str, ...] = ()) -> str | None:
    """The largest tag smaller than the model's own with which it would fit; None if none does.

    The size is computed from the mean bits per weight of each tag (llmlab.files.tags), with an error of about 5 %.
    """
    room = found.free * (1 - HEADROOM) - found.kv_cache - found.overhead
    fitting = [
        tags.TAGS[name]
        for name in (quants or tags.names(engine))
        if name in tags.TAGS
        and tags.TAGS[name].format == FORMATS[engine]
        and header.parameters * tags.TAGS[name].bits / 8 <= min(room, header.weight_bytes * 0.98)
    ]
    return max(fitting, key=lambda tag: tag.bits).name if fitting else None


def check(found: Estimate) -> None:
    """Refuse a model that doesn't fit.

    Raises:
        DoesNotFitError: the estimate exceeds the free memory; the hint says what would fit, and how to force the load.
    """
    if found.fits:
        return
    way = f"What would fit: {'; '.join(found.suggestions)}." if found.suggestions else "No context or quant would fit."
    raise DoesNotFitError(
        f"{found.name} does not fit: it needs about {found}.", f"{way} --force (force=True) loads it anyway."
    )
