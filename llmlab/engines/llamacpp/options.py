"""The engine's `-x KEY=VALUE` options, and the conversion of a load plan to llama.cpp params."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.engines import rope
from llmlab.engines.base import LoadPlan
from llmlab.engines.llamacpp import amx, attention
from llmlab.errors import BadInputError, LoadError, UnsupportedError, unknown
from llmlab.files import vision
from llmlab.machine import cores
from llmlab.machine.hardware import Hardware

EXTRA: dict[str, tuple[type, str]] = {
    "n_threads": (
        int,
        "threads for decoding (default: physical cores, fewer while others take them; 1 for models under 67 MB)",
    ),
    "n_threads_batch": (int, "threads for prompts (default: same as n_threads)"),
    "n_batch": (int, "most tokens computed in one step (default 512)"),
    "n_ubatch": (
        int,
        "most tokens computed at once within a step (default: n_batch, up to 512, or 256 without flash attention)",
    ),
    "prompt_chunk": (int, "most prompt tokens per step while other sequences decode (default 128)"),
    "flash_attn": (
        str,
        "on, off or auto (default auto: on a GPU, for quantized values in the KV cache, and CPUs that are fast at it)",
    ),
    "cache_type_k": (str, "KV cache type of the keys: f16, f32, bf16, q8_0, q5_0, q4_0 (default f16)"),
    "cache_type_v": (str, "KV cache type of the values; quantized types need flash attention (default f16)"),
    "kv_tokens": (
        int,
        "size in tokens of one KV pool for all sequences (default: a full context each); requests wait if it is full",
    ),
    "prefix_cache": (bool, "reuse the KV cache of earlier requests with the same prefix (default on)"),
    "context_shift": (
        bool,
        "when a sequence fills its context, drop the older half and continue (default off: it ends as length)",
    ),
    "draft_tokens": (
        int,
        "most tokens that --draft proposes per step, if they pay; 1 to 32 (default: 7; 15 for ngram)",
    ),
    "check_file": (bool, "first try a file that llmlab didn't make in a separate process (default on)"),
    "mmproj": (
        str,
        "the projector of a vision model, a GGUF file; none: no images (default: the one next to it)",
    ),
    "use_mmap": (bool, "map the file instead of reading it (default on)"),
    "use_mlock": (bool, "keep the weights from being swapped out (default off)"),
    "gpu": (int, "the one GPU to use, as CUDA counts those of this process, from 0 (default: split over all)"),
    "main_gpu": (int, "the same as gpu"),
    "split_mode": (str, "how a model is split over GPUs: layer, row or none (default layer; none takes one GPU)"),
    "tensor_split": (str, "the GPUs' shares of the model, such as 3,1 (default: by their free memory)"),
    "rpc": (
        str,
        "llama.cpp's rpc-server processes, as HOST:PORT,HOST:PORT (refused: see docs/scale.md)",
    ),
    "offload_kqv": (bool, "keep the KV cache on the GPU (default on)"),
    "rope_freq_base": (float, "RoPE base frequency (default: the model's)"),
    "rope_freq_scale": (float, "RoPE frequency scale (default: the model's)"),
    **rope.OPTIONS,
}

_KV_TYPES = ("f16", "f32", "bf16", "q8_0", "q5_0", "q4_0")
_ROPE = {"none": 0, "linear": 1, "yarn": 2}  # enum llama_rope_scaling_type
_FLASH = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type
_CHOICES = {
    "split_mode": ("none", "layer", "row"),
    "flash_attn": tuple(_FLASH),
    "cache_type_k": _KV_TYPES,
    "cache_type_v": _KV_TYPES,
}
# Below this, one thread decodes: see default_threads.
SMALL_MODEL_BYTES = 64 * 2**20
BATCH = 512
# Without flash attention, all attention scores of a step are in memory: 256 tokens at once are faster than 512.
_UBATCH_WITHOUT_FLASH = 256
_PROMPT_CHUNK = 128


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """A load plan's settings for llama.cpp: threads, batch sizes, the KV cache.

    Attributes:
        sequences: most sequences in the batch.
        context: most tokens per sequence.
        kv_tokens: size of the KV cache in tokens, over all sequences.
        unified: one KV pool (True), or one stream per sequence (False). Streams decode 1.2 to 1.7 times as
            fast with 8 to 16 sequences on a CPU, because attention then reads only a sequence's own cells.
    """

    sequences: int
    context: int
    kv_tokens: int
    unified: bool
    threads: int
    threads_batch: int
    batch: int
    ubatch: int
    prompt_chunk: int
    flash: int
    type_k: str
    type_v: str
    prefix_cache: bool
    gpu_layers: int
    extra: Mapping[str, Any]
    draft_tokens: int = 0
    context_shift: bool = False
    rope: rope.Rope | None = None

    @classmethod
    def of(cls, plan: LoadPlan) -> LlamaCppOptions:
        """Validate a plan and fill in the defaults.

        Raises:
            BadInputError: an option is unknown, has the wrong type, or is out of range.
            UnsupportedError: GPU layers, or several GPUs, with a build without GPU support.
        """
        extra = check_extra(plan.extra)
        sequences = plan.max_concurrency
        most = _most_sequences()
        if not 1 <= sequences <= most:
            raise UnsupportedError(f"Can't run {sequences} sequences at once: llamacpp supports 1 to {most}.")
        context = plan.context_length
        stream = _padded(context)
        kv_tokens = extra.get("kv_tokens")
        if kv_tokens is not None and kv_tokens < context:
            raise BadInputError(
                f"kv_tokens={kv_tokens} is smaller than the context of {context} tokens that one sequence may need.",
                f"Set kv_tokens={context} or more, or a shorter context (--ctx).",
            )
        pool = _padded(kv_tokens) if kv_tokens is not None else stream * sequences
        threads = extra.get("n_threads") or default_threads(plan.source.path.stat().st_size)
        drafted = plan.draft.tokens if plan.draft is not None else 0
        if drafted and extra.get("context_shift"):
            raise UnsupportedError("context_shift can't be combined with a draft.", "Leave one of them out.")
        batch = max(min(extra.get("n_batch") or BATCH, pool), sequences * (1 + drafted))
        gpu_layers = _gpu_layers(plan)
        _check_split(extra)
        flash = uses_flash(extra, on_gpu=gpu_layers != 0)
        return cls(
            sequences=sequences,
            context=context,
            kv_tokens=pool,
            unified=kv_tokens is not None and pool < stream * sequences,
            threads=threads,
            threads_batch=extra.get("n_threads_batch") or threads,
            batch=batch,
            ubatch=min(step_tokens(extra, flash=flash), batch),
            prompt_chunk=min(extra.get("prompt_chunk") or _PROMPT_CHUNK, batch),
            flash=_FLASH[extra.get("flash_attn", "auto") if flash else "off"],
            type_k=extra.get("cache_type_k", "f16"),
            type_v=extra.get("cache_type_v", "f16"),
            prefix_cache=extra.get("prefix_cache", True),
            gpu_layers=gpu_layers,
            extra=extra,
            draft_tokens=drafted,
            context_shift=extra.get("context_shift", False),
            rope=rope.rope_of(extra, plan.source.header.context_length or 0),
        )

    def model_params(self) -> Any:
        """A fresh `llama_model_params`."""
        import llama_cpp

        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = self.gpu_layers
        index = self.extra.get("gpu", self.extra.get("main_gpu"))
        if "split_mode" in self.extra:
            params.split_mode = getattr(llama_cpp, f"LLAMA_SPLIT_MODE_{self.extra['split_mode'].upper()}")
        if "tensor_split" in self.extra:
            # The parameters keep the array alive.
            shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*split_shares(self.extra["tensor_split"]))
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        if index is not None:
            # llama.cpp ignores the GPU unless splitting is off.
            params.main_gpu, params.split_mode = index, llama_cpp.LLAMA_SPLIT_MODE_NONE
        mmap, mlock = self.extra.get("use_mmap", True), self.extra.get("use_mlock", False)
        modes = {
            (True, False): llama_cpp.LLAMA_LOAD_MODE_MMAP,
            (True, True): llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK,
            (False, False): llama_cpp.LLAMA_LOAD_MODE_NONE,
            (False, True): llama_cpp.LLAMA_LOAD_MODE_MLOCK,
        }
        params.load_mode = modes[mmap and bool(llama_cpp.llama_supports_mmap()), mlock]
        params.use_extra_bufts = not amx.crashes()
        return params

    def context_params(self) -> Any:
        """A fresh `llama_context_params`."""
        import llama_cpp

        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.kv_tokens
        params.n_seq_max = self.sequences
        params.kv_unified = self.unified
        params.n_batch = self.batch
        params.n_ubatch = self.ubatch
        # One row of logits per sequence and drafted token; the default reserves one per token of a batch.
        params.n_outputs_max = min(self.sequences * (1 + self.draft_tokens), self.batch)
        params.n_threads = self.threads
        params.n_threads_batch = self.threads_batch
        params.flash_attn_type = self.flash
        params.type_k = getattr(llama_cpp, f"GGML_TYPE_{self.type_k.upper()}")
        params.type_v = getattr(llama_cpp, f"GGML_TYPE_{self.type_v.upper()}")
        params.offload_kqv = self.extra.get("offload_kqv", True)
        params.rope_freq_base = self.extra.get("rope_freq_base", 0.0)
        params.rope_freq_scale = self.extra.get("rope_freq_scale", 0.0)
        if self.rope is not None:
            params.rope_scaling_type = _ROPE[self.rope.kind]
            params.rope_freq_scale = 1 / self.rope.factor
            params.yarn_orig_ctx = self.rope.original
            params.yarn_beta_fast, params.yarn_beta_slow = self.rope.beta_fast, self.rope.beta_slow
        params.no_perf = True
        return params


def arguments(plan: LoadPlan, hardware: Hardware) -> dict[str, Any]:
    """llama.cpp's parameters for a plan, for a dry run. See `Engine.arguments`."""
    extra = dict(plan.extra)
    found: dict[str, Any] = {
        "n_ctx": extra.pop("kv_tokens", None) or _padded(plan.context_length) * plan.max_concurrency,
        "n_seq_max": plan.max_concurrency,
        "n_gpu_layers": 0 if hardware == "CPU" else -1 if plan.gpu_layers is None else plan.gpu_layers,
        "type_k": extra.pop("cache_type_k", "f16"),
        "type_v": extra.pop("cache_type_v", "f16"),
    }
    return found | extra


def projector_of(plan: LoadPlan) -> Path | None:
    """The projector that a plan loads with its model: the option's, else the one next to the file.

    Raises:
        UnsupportedError: one is named, together with an option that images can't be combined with.
    """
    found = projector_path(plan.extra, plan.source.path)
    if found is None or (plan.draft is None and not plan.extra.get("context_shift")):
        return found
    if "mmproj" not in plan.extra:  # images are refused, with the reason
        return None
    other = "a draft" if plan.draft is not None else "context_shift"
    raise UnsupportedError(f"mmproj can't be combined with {other}.", "Leave one of them out.")


def projector_path(extra: Mapping[str, Any], path: Path) -> Path | None:
    """The projector that belongs to a model's file: the one that the options name, else the one next to it."""
    named = extra.get("mmproj")
    if named == "none":
        return None
    return Path(named) if named else vision.projector(path)


def default_threads(weight_bytes: int) -> int:
    """All usable cores; a single thread for a tiny model.

    A tiny model's step is shorter than the spin barriers between its parts, and one other busy process then makes
    every barrier wait for a time slice (measured on nano, two busy cores: 37-330 tokens/s with two threads,
    1,400-2,800 with one; interrupts took seconds). On two idle cores of an AMD EPYC, one nano has 5,340 tokens/s with
    two threads and 4,160 with one, but two that answer at once have 2,410 and 7,410 in sum.
    """
    return 1 if weight_bytes < SMALL_MODEL_BYTES else cores.usable()


def uses_flash(extra: Mapping[str, Any], *, on_gpu: bool, measure: bool = True) -> bool:
    """Whether flash attention is used: as asked, else where it pays (see `attention`).

    Args:
        extra: the engine's options.
        on_gpu: whether layers are on a GPU.
        measure: measure on this machine if that wasn't done before; otherwise it counts as not paying.
    """
    asked = extra.get("flash_attn", "auto")
    if asked != "auto":
        return bool(asked == "on")
    if on_gpu or extra.get("cache_type_v", "f16") not in ("f16", "f32", "bf16"):
        return True
    return attention.pays() if measure else attention.known_to_pay()


def step_tokens(extra: Mapping[str, Any], *, flash: bool) -> int:
    """The most tokens that are computed at once within a step."""
    most = BATCH if flash else _UBATCH_WITHOUT_FLASH
    return int(min(extra.get("n_ubatch") or most, extra.get("n_batch") or BATCH))


def check_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the names, types and ranges of engine options.

    Raises:
        UnknownNameError: no such option.
        BadInputError: wrong type, or value out of range.
    """
    out: dict[str, Any] = {}
    for key, value in extra.items():
        if key not in EXTRA:
            raise unknown("llamacpp option", key, EXTRA)
        kind, description = EXTRA[key]
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise BadInputError(f"-x {key} must be {kind.__name__}, got {value!r}: {description}.")
        out[key] = value
    for key in ("n_threads", "n_threads_batch", "n_batch", "n_ubatch", "prompt_chunk", "kv_tokens", "draft_tokens"):
        if key in out and out[key] < 1:
            raise BadInputError(f"-x {key} must be 1 or more, got {out[key]}.")
    for key, choices in _CHOICES.items():
        if key in out and out[key] not in choices:
            raise unknown(f"value of {key}", out[key], choices)
    projector = out.get("mmproj", "none")
    if projector != "none" and not Path(projector).is_file():
        raise BadInputError(f"-x mmproj: there is no file {projector}.", "Give the projector's GGUF file, or none.")
    if out.get("cache_type_v", "f16") not in ("f16", "f32", "bf16") and out.get("flash_attn") == "off":
        raise BadInputError(
            f"cache_type_v={out['cache_type_v']} needs flash attention.", "Leave out flash_attn=off, or use f16."
        )
    return out


def split_shares(text: str) -> list[float]:
    """The GPUs' shares in -x tensor_split.

    Raises:
        BadInputError: they aren't numbers of 0 or more, some above 0.

    Example:
        >>> split_shares("3,1")
        [3.0, 1.0]
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [-1.0]
    if not all(0 <= share < math.inf for share in shares) or not any(shares):
        raise BadInputError(
            f"-x tensor_split={text}: give each GPU's share as a number of 0 or more.", "For example tensor_split=3,1"
        )
    return shares


def _check_split(extra: Mapping[str, Any]) -> None:
    """Refuse what the installed build can't split over."""
    import llama_cpp

    asked = [name for name in ("split_mode", "tensor_split") if name in extra]
    if asked and not llama_cpp.llama_supports_gpu_offload():
        raise UnsupportedError(
            f"-x {asked[0]} splits a model over GPUs, and this build of llama-cpp-python supports the CPU only.",
            f"Leave {asked[0]} out.",
        )
    if "tensor_split" in extra and len(split_shares(extra["tensor_split"])) > llama_cpp.llama_max_devices():
        raise BadInputError(
            f"-x tensor_split has more shares than llama.cpp's {llama_cpp.llama_max_devices()} devices."
        )
    if asked and ("gpu" in extra or "main_gpu" in extra) and extra.get("split_mode") != "none":
        raise BadInputError(f"-x gpu=N uses one GPU, and {asked[0]} splits the model.", "Leave one out.")
    if "rpc" not in extra:
        return
    if not llama_cpp.llama_supports_rpc():
        raise UnsupportedError(
            "-x rpc needs llama.cpp's RPC backend, which this llama-cpp-python was built without.",
            'Leave it out, or reinstall: CMAKE_ARGS="-DGGML_RPC=on" pip install --force-reinstall --no-cache-dir '
            "llama-cpp-python",
        )
    raise UnsupportedError(
        "llmlab doesn't connect to rpc-server processes: llama-cpp-python has no function for it.",
        "Start llama-server with --rpc, and attach to it: %llm attach URL",
    )


def _gpu_layers(plan: LoadPlan) -> int:
    import llama_cpp

    supported = bool(llama_cpp.llama_supports_gpu_offload())
    if plan.gpu_layers is None:
        # In llama.cpp a negative number means all layers.
        return -1 if supported else 0
    if plan.gpu_layers != 0 and not supported:
        raise UnsupportedError(
            f"--gpu-layers {plan.gpu_layers}: this build of llama-cpp-python supports the CPU only.",
            "Leave it out, or reinstall with GPU support: "
            'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python '
            "(-DGGML_METAL=on on a Mac).",
        )
    return plan.gpu_layers


def _most_sequences() -> int:
    import llama_cpp

    try:
        return int(llama_cpp.llama_max_parallel_sequences())
    except AttributeError as error:
        raise LoadError(
            "This llama-cpp-python is too old for llmlab.", "pip install llama-cpp-python==0.3.36"
        ) from error


def _padded(tokens: int) -> int:
    # llama_context rounds up to this multiple itself; rounding here keeps the reported sizes exact.
    return -(-tokens // 256) * 256
