"""The engine's `-x` options and their limits, and the conversion of a load plan to vLLM's engine arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.engines import rope
from llmlab.engines.base import LoadPlan, Reserved
from llmlab.engines.sampling import GREEDY
from llmlab.engines.vllm import pooled, processors, replay
from llmlab.engines.vllm.speculation import speculative_config
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.files import architectures, fit, pooling, sizes
from llmlab.files.headers import Header
from llmlab.files.pooling import Embedding
from llmlab.machine import hardware
from llmlab.machine.hardware import Hardware
from llmlab.machine.memory import Device

EXTRA: Mapping[str, tuple[type, str]] = {
    "dtype": (str, "dtype of weights and KV cache: bfloat16, float16, float32 (default: bfloat16 on the CPU)"),
    "enforce_eager": (bool, "skip torch.compile: loads faster, decodes slower (default: true on the CPU, else false)"),
    "threads": (
        int,
        "CPU threads (default: all cores, fewer while others take them; 1 for models under 67 MB)",
    ),
    "kv_cache_gib": (
        float,
        "KV cache in GiB, as vLLM counts (default: half of what the weights leave; CPU: max_concurrency contexts)",
    ),
    "gpu": (int, "the GPU to use, as CUDA counts those of this process, from 0 (default: the first)"),
    "gpu_memory_utilization": (
        float,
        "share of the GPU's memory that the load takes, 0 to 1; the KV cache fills it (default: as estimated)",
    ),
    "max_num_batched_tokens": (
        int,
        "most tokens computed in one step; longer prompts are split into chunks of this size",
    ),
    "block_size": (int, "tokens per KV block, the unit of prefix reuse, in multiples of 32 (CPU only; default: 32)"),
    "enable_prefix_caching": (bool, "reuse the KV cache of earlier requests with the same prefix (default: true)"),
    "seed": (int, "seed for requests without their own (default: 0)"),
    "max_loras": (
        int,
        "adapter slots: most distinct adapters per step; others wait (default: 4; on a GPU 0 if they need over 2 %)",
    ),
    "max_lora_rank": (int, "largest rank of an adapter, up to 512 (default: 64)"),
    "draft_tokens": (int, "most tokens that --draft proposes per step, 1 to 32 (default: 4; 8 for ngram)"),
    "trust_remote_code": (bool, "run Python code from the model folder (default: false)"),
    **rope.OPTIONS,
}

DTYPES = ("auto", "bfloat16", "float16", "float32")
MAX_LOGPROBS = 100
# vLLM's limits (vllm/sampling_params.py).
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 2.0
# Tokens per KV block on the CPU. Only full blocks are reused; vLLM's default of 128 would recompute up to 127 tokens
# of a chat's history. The attention kernels need multiples of 32.
CPU_BLOCK = 32
# Ranks that vLLM supports (vllm/config/lora.py); others are rounded up.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Adapters whose matrices stay in memory; others are read from disk again when a request needs them.
LORAS_KEPT = 64
# Adapter slots by default.
SLOTS = 4
# Below this, a step's parallel regions are shorter than the barriers between them, and one other busy process makes
# every barrier wait for a time slice (measured on nano, 2 cores: with two threads 398 tokens/s on an idle machine and
# 44 next to one other process; with one thread 363 in both cases).
SMALL_MODEL_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """The validated engine options of a plan.

    Attributes:
        threads: CPU threads of the decoding loop.
        args: keyword arguments for `vllm.EngineArgs`.
    """

    threads: int
    args: Mapping[str, Any]


def check(plan: LoadPlan, *, cpu: bool) -> None:
    """Reject a plan that vLLM can't load, before importing anything slow.

    Args:
        plan: what to load.
        cpu: the installed vLLM is the CPU build.

    Raises:
        UnsupportedError: vLLM can't load the file format, or adapters with a model that the CPU build splits.
        BadInputError: an option's value is out of its range.
    """
    if plan.source.format != "safetensors":
        raise UnsupportedError(
            f"vLLM can't load {plan.source.format} files.", "Use --engine llamacpp, or the Hugging Face folder."
        )
    if cpu and plan.parallel.per_copy > 1 and "max_loras" in plan.extra:
        raise UnsupportedError(
            "Adapters weren't tried with a model that vLLM's CPU build splits over processes.",
            f"Leave out {plan.parallel.options.split()[0]}: one process uses all cores, too.",
        )
    extra = plan.extra

    def number(name: str, low: float, high: float, wanted: str) -> None:
        value = extra.get(name)
        if value is not None and not low <= value <= high:
            raise BadInputError(f"-x {name} must be {wanted}, got {value!r}.")

    if extra.get("dtype", "auto") not in DTYPES:
        raise BadInputError(f"-x dtype must be one of {', '.join(DTYPES)}, got {extra['dtype']!r}.")
    number("threads", 1, 1024, "1 to 1024")
    number("kv_cache_gib", 2**-10, 2**20, "above 0 (GiB)")
    number("gpu_memory_utilization", 0.01, 1, "above 0 and at most 1")
    number("max_num_batched_tokens", 16, 2**24, "16 or more")
    number("block_size", 32, 1024, "a multiple of 32")
    if extra.get("block_size", 32) % 32:
        raise BadInputError(f"-x block_size must be a multiple of 32, got {extra['block_size']}.")
    if "block_size" in extra and not cpu:
        raise BadInputError(
            "-x block_size is for the CPU only; on a GPU vLLM chooses it to match the attention kernel."
        )
    number("max_loras", 0, 1024, "0 (no adapters) to 1024")
    if cpu and extra.get("max_loras") and plan.source.header.is_mixture:
        raise UnsupportedError(
            f"{plan.source.name} is a mixture of experts, which vLLM's CPU build can't run with adapter slots.",
            f"Leave out -x max_loras={extra['max_loras']}, or use --engine llamacpp for adapters.",
        )
    rope_overrides(plan.source.header, plan.extra)
    number("max_lora_rank", 1, LORA_RANKS[-1], f"1 to {LORA_RANKS[-1]}")
    number("seed", 0, 2**32 - 1, "an integer from 0 to 4294967295")


def crosses(temperature: float) -> bool:
    """Whether a core in a child process samples at a temperature.

    vLLM validates the parameters again where the child decodes them: above 2 that ends the thread that reads requests,
    and a value below 0.01 becomes 0.01. In this process the value is set behind the validation.
    """
    return temperature < GREEDY or LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE


def temperature_error(temperature: float | None) -> UnsupportedError:
    """The error for a temperature that doesn't cross."""
    return UnsupportedError(
        f"vLLM on a GPU samples at temperatures from {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE:g}, got "
        f"{temperature:g}.",
        f"Use 0 (greedy), or a value from {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE:g}.",
    )


def bound_cores(workers: int) -> str:
    """The cores of this process, shared out to workers, as vLLM's CPU build reads them: "0-1|2-3"."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    each = max(len(mine) // workers, 1)
    return "|".join(",".join(map(str, mine[at * each : (at + 1) * each])) for at in range(workers))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve(plan: LoadPlan, *, cpu: bool, header: Header, build: Hardware | None = None) -> VllmOptions:
    """Turn a plan into vLLM's arguments.

    Args:
        plan: a validated load plan.
        cpu: the core runs in this process, on the CPU.
        header: the model's headers.
        build: where vLLM computes; None: where the installed one does.
    """
    extra = dict(plan.extra)
    embedding = pooling.of(header)
    threads = extra.get("threads") or (1 if cpu and header.weight_bytes < SMALL_MODEL_BYTES else cores())
    kv_gib = extra.get("kv_cache_gib")
    args: dict[str, Any] = {
        "model": str(plan.source.path),
        # Encoders are published in float32, small, and compared by their vectors' third digit.
        "dtype": extra.get("dtype", _dtype(embedding, header, cpu=cpu)),
        "max_model_len": plan.context_length,
        "max_num_seqs": plan.max_concurrency,
        "tensor_parallel_size": plan.parallel.tensor,
        "enforce_eager": extra.get("enforce_eager", cpu),
        "enable_prefix_caching": extra.get("enable_prefix_caching", True),
        "gpu_memory_utilization": extra.get("gpu_memory_utilization", plan.gpu_share or 0.9),
        "kv_cache_memory_bytes": int(kv_gib * 2**30) if kv_gib else None,
        "max_num_batched_tokens": extra.get("max_num_batched_tokens"),
        "seed": extra.get("seed", 0),
        "trust_remote_code": extra.get("trust_remote_code", False),
        # llmlab has already applied the model's sampling defaults; vLLM must not add its own.
        "generation_config": "vllm",
        "max_logprobs": MAX_LOGPROBS,
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        # The mask library that the other engine uses too, so that both support the same constraints.
        "structured_outputs_config": {"backend": "guidance"},
    }
    if plan.parallel.pipeline > 1:
        args["pipeline_parallel_size"] = plan.parallel.pipeline
    if plan.parallel.executor is not None or plan.parallel.nodes > 1:
        args["distributed_executor_backend"] = plan.parallel.executor or "ray"
    scaled = rope_overrides(plan.source.header, plan.extra)
    if scaled is not None:
        args["hf_overrides"] = scaled
    if plan.source.online is not None:
        args["quantization"] = plan.source.online
    slots = slots_of(plan, cpu=cpu)
    if slots:
        args |= {
            "enable_lora": True,
            "max_loras": slots,
            "max_lora_rank": lora_rank(extra),
            "max_cpu_loras": max(slots, LORAS_KEPT),
        }
    if mistral_format(plan.source.path):
        # Otherwise vLLM takes the files in Mistral's own format, and with them another tokenizer and chat template.
        args |= {"tokenizer_mode": "hf", "config_format": "hf", "load_format": "hf"}
    if plan.draft is not None:
        args["speculative_config"] = speculative_config(plan.draft)
    if embedding is not None:
        args |= pooled.arguments(embedding)
        # vLLM knows which poolings allow a text to be computed in parts; an encoder has no KV cache at all.
        for name in ("structured_outputs_config", "enable_prefix_caching"):
            del args[name]
    elif cpu and plan.draft is None:  # vLLM rejects them with a draft
        args["logits_processors"] = [*processors.NAMES, replay.NAME]
    if not cpu and plan.parallel.per_copy > 1 and (build or hardware.vllm_build()) == "CPU":
        # float32: the CPU's kernels for bfloat16 may need a permission (AMX) that only llmlab's own process asks for.
        args |= {
            "dtype": extra.get("dtype", "float32"),
            "enforce_eager": extra.get("enforce_eager", True),
            "block_size": extra.get("block_size", CPU_BLOCK),
        }
        if kv_gib is None:
            tokens = (plan.context_length + CPU_BLOCK) * plan.max_concurrency
            args["kv_cache_memory_bytes"] = fit.kv_bytes(header, tokens, "f32") // plan.parallel.tensor
    if cpu:
        args["block_size"] = extra.get("block_size", CPU_BLOCK)
        args["worker_cls"] = "llmlab.engines.vllm.patches.NotebookWorker"
    return VllmOptions(threads, args)


def rope_overrides(header: Header, extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of a model's configuration that the options for RoPE scaling replace; None leaves it.

    Raises:
        UnsupportedError: the model's layers have different frequencies.
    """
    scaling = rope.rope_of(extra, header.context_length or 0)
    if scaling is None:
        return None
    config = header.metadata
    own = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if any(isinstance(value, Mapping) for value in own.values()) or "rope_local_base_freq" in config:
        raise UnsupportedError(
            f"vLLM can't set rope_scaling for {header.architecture}: its layers have different RoPE frequencies.",
            "Leave it out, or use --engine llamacpp.",
        )
    kept = {name: own[name] for name in ("rope_theta", "partial_rotary_factor", "mrope_section") if name in own}
    theta = kept.pop("rope_theta", config.get("rope_theta", 10_000.0))
    made = {"rope_type": "default" if scaling.kind == "none" else scaling.kind, "rope_theta": theta, **kept}
    if scaling.kind != "none":
        made |= {"factor": scaling.factor, "original_max_position_embeddings": scaling.original}
    if scaling.kind == "yarn":
        made |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    if scaling.kind == "none":
        return {"rope_parameters": made}
    # vLLM multiplies this length by the factor, except with yarn.
    longest = scaling.context_length if scaling.kind == "yarn" else scaling.original
    return {"rope_parameters": made, "max_position_embeddings": longest}


def _dtype(embedding: Embedding | None, header: Header, *, cpu: bool) -> str:
    if embedding is not None and header.quant == "fp32":
        return "float32"
    return "bfloat16" if cpu else "auto"


def slots_of(plan: LoadPlan, *, cpu: bool) -> int:
    """Most distinct adapters per step; 0: adapters are disabled.

    On a GPU the plan decides (`reserve`). On the CPU slots take no memory before the first adapter; but vLLM can't
    compile a model with slots there, so a compiled one has none unless `max_loras` is set; and with slots, a mixture of
    experts runs on Triton's kernels, which the CPU build lacks: every request would fail.
    """
    if plan.adapter_slots is not None:
        return plan.adapter_slots
    value = plan.extra.get("max_loras")
    if value is not None:
        return int(value)
    header = plan.source.header
    if pooling.of(header) is not None and architectures.lora_in_vllm(header.architecture) is not True:
        return 0  # an encoder: vLLM refuses the load
    eager = plan.extra.get("enforce_eager", True)
    return SLOTS if cpu and eager and not header.is_mixture else 0


def reserve(header: Header, extra: Mapping[str, Any], device: Device) -> Reserved:
    """What a load sets aside. See `Engine.reserves`."""
    gib = extra.get("kv_cache_gib")
    kv = int(gib * 2**30) if gib else None
    if device.name == "CPU":
        # Slots take memory at the first adapter, in float32 (`lora.wrap`); counted where they were asked for.
        asked = int(extra.get("max_loras") or 0)
        return Reserved(None, 2 * sizes.adapter_bytes(header, asked, lora_rank(extra)), kv)
    able, slots, rank = architectures.lora_in_vllm(header.architecture), extra.get("max_loras"), lora_rank(extra)
    if slots is None:
        fits = sizes.adapter_bytes(header, SLOTS, rank) <= sizes.ADAPTER_SHARE * device.free
        slots = SLOTS if able and fits else 0
    elif slots and able is False:
        raise UnsupportedError(
            f"vLLM has no LoRA layers for {header.architecture}.",
            "Leave out --lora (-x max_loras), or merge the adapter: %llm lora merge NAME --as MODEL",
        )
    taken = sizes.adapter_bytes(header, slots, rank)
    share = extra.get("gpu_memory_utilization")
    if kv is None and share is not None:
        over = fit.overhead_bytes(header, "vllm", 0, on_gpu=True)
        kv = max(int(share * device.total) - header.weight_bytes - over - taken, 0)
    return Reserved(slots, taken, kv)


def mistral_format(folder: Path) -> bool:
    """Whether a Hugging Face folder has the model in Mistral's own format, too."""
    own = [*folder.glob("consolidated*"), folder / "params.json", folder / "tekken.json"]
    return (folder / "config.json").is_file() and any(file.exists() for file in own)


def lora_rank(extra: Mapping[str, Any]) -> int:
    """The largest rank that an adapter may have."""
    value = extra.get("max_lora_rank", 64)
    return next(rank for rank in LORA_RANKS if rank >= value)
