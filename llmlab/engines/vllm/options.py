"""What vLLM is told: the `-x` options and their limits, and the engine arguments made from a plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmlab.engines.base import LoadPlan
from llmlab.engines.vllm.speculation import speculative_config
from llmlab.errors import BadInputError, UnsupportedError

EXTRA: Mapping[str, tuple[type, str]] = {
    "dtype": (str, "number type of weights and KV cache: bfloat16, float16, float32 (default: bfloat16 on the CPU)"),
    "enforce_eager": (bool, "skip torch.compile: loads sooner, decodes slower (default: true on the CPU, else false)"),
    "threads": (int, "CPU threads of the decoding loop (default: all cores; 1 for models under 64 MiB)"),
    "kv_cache_gib": (float, "KV cache in GiB (CPU: max_concurrency full contexts, at most half the free RAM)"),
    "gpu_memory_utilization": (float, "share of GPU memory for weights and KV cache, 0 to 1 (default: 0.9)"),
    "max_num_batched_tokens": (int, "most tokens computed in one step; long prompts are cut into such chunks"),
    "block_size": (int, "tokens of a KV block, the unit of prefix reuse, in multiples of 32 (CPU only; default: 32)"),
    "enable_prefix_caching": (bool, "reuse the KV of a prompt's beginning that was seen before (default: true)"),
    "seed": (int, "seed of what no request seeds (default: 0)"),
    "max_loras": (int, "different adapters in one step; further ones wait their turn; 0: none (default: 4)"),
    "max_lora_rank": (int, "largest rank of an adapter, up to 512 (default: 64)"),
    "draft_tokens": (int, "tokens that --draft guesses ahead in a step, 1 to 32 (default: 4; 8 for ngram)"),
    "trust_remote_code": (bool, "run Python code that lies in the model folder (default: false)"),
}

DTYPES = ("auto", "bfloat16", "float16", "float32")
MAX_LOGPROBS = 100
# Tokens of a KV block on the CPU. Only whole blocks are reused; vLLM's own 128 would compute up to 127 tokens of a
# chat's history again. The attention kernels want multiples of 32.
CPU_BLOCK = 32
# Ranks that vLLM has slots for (vllm/config/lora.py); others are rounded up.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Adapters whose matrices stay in memory; further ones are read from disk again when a request asks for them.
LORAS_KEPT = 64
# Below this, a step's parallel regions are shorter than the barriers between them, and one busy neighbour makes
# every barrier wait for a time slice (measured on nano, 2 cores: 398 tokens/s with two threads on a quiet machine,
# 44 beside one other process; 363 with one thread either way).
SMALL_MODEL_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """The engine options of a plan, checked.

    Attributes:
        threads: CPU threads of the decoding loop.
        args: keyword arguments for `vllm.EngineArgs`.
    """

    threads: int
    args: Mapping[str, Any]


def check(plan: LoadPlan, *, cpu: bool) -> None:
    """Refuse a plan that vLLM can't carry out; quick, before anything heavy is imported.

    Args:
        plan: what to load.
        cpu: the installed vLLM is the CPU build.

    Raises:
        UnsupportedError: a format that vLLM doesn't load, or tensor parallelism on the CPU.
        BadInputError: an option's value is out of its range.
    """
    if plan.source.format != "safetensors":
        raise UnsupportedError(
            f"vLLM doesn't load {plan.source.format} files.", "Use --engine llamacpp, or the Hugging Face folder."
        )
    if cpu and plan.tensor_parallel > 1:
        raise UnsupportedError(
            f"--tp {plan.tensor_parallel} needs {plan.tensor_parallel} GPUs; on the CPU vLLM runs in this one process.",
            "Leave --tp out: all cores are used anyway.",
        )
    extra = plan.extra

    def number(name: str, low: float, high: float, says: str) -> None:
        value = extra.get(name)
        if value is not None and not low <= value <= high:
            raise BadInputError(f"-x {name} must be {says}, got {value!r}.")

    if extra.get("dtype", "auto") not in DTYPES:
        raise BadInputError(f"-x dtype must be one of {', '.join(DTYPES)}, got {extra['dtype']!r}.")
    number("threads", 1, 1024, "a whole number of threads, 1 or more")
    number("kv_cache_gib", 2**-10, 2**20, "more than 0 (GiB)")
    number("gpu_memory_utilization", 0.01, 1, "more than 0 and at most 1")
    number("max_num_batched_tokens", 16, 2**24, "16 or more")
    number("block_size", 32, 1024, "a multiple of 32")
    if extra.get("block_size", 32) % 32:
        raise BadInputError(f"-x block_size must be a multiple of 32, got {extra['block_size']}.")
    if "block_size" in extra and not cpu:
        raise BadInputError("-x block_size is for the CPU only; on a GPU vLLM chooses it with the attention kernel.")
    number("max_loras", 0, 1024, "0 (no adapters) to 1024")
    number("max_lora_rank", 1, LORA_RANKS[-1], f"1 to {LORA_RANKS[-1]}")
    number("seed", 0, 2**32 - 1, "a whole number from 0 to 4294967295")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settle(plan: LoadPlan, *, cpu: bool, weight_bytes: int) -> VllmOptions:
    """Turn a plan into vLLM's arguments.

    Args:
        plan: what to load, checked.
        cpu: vLLM runs on the CPU (as its own platform detection says).
        weight_bytes: bytes of the weights on disk.
    """
    extra = dict(plan.extra)
    threads = extra.get("threads") or (1 if cpu and weight_bytes < SMALL_MODEL_BYTES else cores())
    kv_gib = extra.get("kv_cache_gib")
    args: dict[str, Any] = {
        "model": str(plan.source.path),
        "dtype": extra.get("dtype", "bfloat16" if cpu else "auto"),
        "max_model_len": plan.context_length,
        "max_num_seqs": plan.max_concurrency,
        "tensor_parallel_size": plan.tensor_parallel,
        "enforce_eager": extra.get("enforce_eager", cpu),
        "enable_prefix_caching": extra.get("enable_prefix_caching", True),
        "gpu_memory_utilization": extra.get("gpu_memory_utilization", 0.9),
        "kv_cache_memory_bytes": int(kv_gib * 2**30) if kv_gib else None,
        "max_num_batched_tokens": extra.get("max_num_batched_tokens"),
        "seed": extra.get("seed", 0),
        "trust_remote_code": extra.get("trust_remote_code", False),
        # The sampling defaults of the model are settled before a request gets here; vLLM must add none of its own.
        "generation_config": "vllm",
        "max_logprobs": MAX_LOGPROBS,
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        # The mask library of the other engine too, so that both take the same constraints.
        "structured_outputs_config": {"backend": "guidance"},
    }
    if plan.source.online is not None:
        args["quantization"] = plan.source.online
    slots = lora_slots(extra, cpu=cpu)
    if slots:
        args |= {
            "enable_lora": True,
            "max_loras": slots,
            "max_lora_rank": lora_rank(extra),
            "max_cpu_loras": max(slots, LORAS_KEPT),
        }
    if plan.draft is not None:
        args["speculative_config"] = speculative_config(plan.draft)
    if cpu:
        args["block_size"] = extra.get("block_size", CPU_BLOCK)
        args["worker_cls"] = "llmlab.engines.vllm.patches.NotebookWorker"
    return VllmOptions(threads, args)


def lora_slots(extra: Mapping[str, Any], *, cpu: bool) -> int:
    """Different adapters that a step may hold; 0: none can be attached.

    On the CPU vLLM compiles no model that takes adapters, so a compiled one takes none unless they are asked for.
    """
    asked = extra.get("max_loras")
    if asked is not None:
        return int(asked)
    return 0 if cpu and not extra.get("enforce_eager", True) else 4


def lora_rank(extra: Mapping[str, Any]) -> int:
    """The largest rank that an adapter may have."""
    asked = extra.get("max_lora_rank", 64)
    return next(rank for rank in LORA_RANKS if rank >= asked)
