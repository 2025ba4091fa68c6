"""`vllm serve`: the arguments for a loaded model."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
from collections.abc import Mapping
from typing import Any

from llmlab.deploy.places import Places
from llmlab.deploy.snapshot import Snapshot
from llmlab.engines.vllm.options import lora_rank, rope_overrides
from llmlab.engines.vllm.speculation import speculative_config
from llmlab.errors import UnsupportedError
from llmlab.files.headers import read_header

NAME = "vllm"
_DISTRIBUTIONS = (NAME, f"{NAME}-cpu")
# The sampling params that vLLM takes from a generation config (vllm/config/model.py), besides max_new_tokens.
_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_OTHERS = ("typical_p", "presence_penalty", "frequency_penalty", "min_tokens", "logit_bias")
_COPIED = ("enforce_eager", "max_num_batched_tokens", "gpu_memory_utilization", "trust_remote_code", "seed")


def installed() -> bool:
    """Whether vLLM is installed here."""
    return importlib.util.find_spec(NAME) is not None


def version() -> str | None:
    """The installed version, without a local part; None if it isn't installed."""
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def images() -> tuple[str, str]:
    """The images of the installed version."""
    tag = f"v{found}" if (found := version()) else "latest"
    return f"vllm/vllm-openai-cpu:{tag}", f"vllm/vllm-openai:{tag}"


def check(snapshot: Snapshot) -> None:
    """Refuse what vLLM can't serve. The format is checked before.

    Raises:
        UnsupportedError: the scale of an adapter is part of a file that doesn't exist.
    """
    names = {one.name for one in snapshot.loras}
    if snapshot.name in names:
        raise UnsupportedError(
            f"vLLM serves adapters as models, and {snapshot.name} has an adapter of its own name.",
            "Attach the adapter under another name.",
        )


def notes(snapshot: Snapshot) -> list[str]:
    """What differs from the model in the kernel."""
    found = []
    lost = [name for name in _OTHERS if _set(snapshot, name)]
    if lost:
        found.append(f"vLLM has no server-side default for {', '.join(lost)}: clients must send them.")
    if snapshot.loras:
        served = ", ".join(one.name for one in snapshot.loras)
        found.append(f"Adapters are models of their own: {served}. The model {snapshot.name} answers without one.")
    if snapshot.in_use:
        found.append(f"The adapter in use here is the model {snapshot.adapter}: clients must name it.")
    if "threads" in snapshot.options:
        found.append("-x threads isn't part of the command: vLLM binds its threads itself (VLLM_CPU_OMP_THREADS_BIND).")
    return found


def _set(snapshot: Snapshot, name: str) -> bool:
    neutral = {"typical_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_tokens": 0}
    value = getattr(snapshot.sampling, name)
    return bool(value is not None and value != neutral.get(name, {}))


def engine_arguments(snapshot: Snapshot, places: Places) -> dict[str, Any]:
    """VLLM's engine arguments, under its Python names. The model itself isn't one of them.

    Args:
        snapshot: the model.
        places: where its files are.
    """
    options = snapshot.options
    defaults = {name: getattr(snapshot.sampling, name) for name in _DEFAULTS}
    found: dict[str, Any] = {
        "dtype": snapshot.dtype or options.get("dtype", "auto"),
        "max_model_len": snapshot.context,
        "max_num_seqs": snapshot.concurrency,
        "generation_config": "vllm",
        "override_generation_config": {name: value for name, value in defaults.items() if value is not None},
        "max_logprobs": 100,
        "logprobs_mode": "raw_logprobs",
        "structured_outputs_config": {"backend": "guidance"},
        **{name: options[name] for name in _COPIED if name in options},
    }
    if not snapshot.gpus:
        found.setdefault("enforce_eager", True)
    if snapshot.gpus > snapshot.stages:
        found["tensor_parallel_size"] = snapshot.gpus // snapshot.stages
    if snapshot.stages > 1:
        found["pipeline_parallel_size"] = snapshot.stages
    if options.get("enable_prefix_caching") is False:
        found["enable_prefix_caching"] = False
    if options.get("kv_cache_gib") and snapshot.gpus:
        found["kv_cache_memory_bytes"] = int(options["kv_cache_gib"] * 2**30)
    scaled = rope_overrides(read_header(snapshot.path), options)
    if scaled is not None:
        found["hf_overrides"] = scaled
    if snapshot.online is not None:
        found["quantization"] = snapshot.online
    if snapshot.loras:
        largest = max(one.rank for one in snapshot.loras)
        rank = max(lora_rank({"max_lora_rank": largest}), lora_rank(options))
        found |= {"enable_lora": True, "max_loras": max(options.get("max_loras", 4), 1), "max_lora_rank": rank}
    if snapshot.draft is not None:
        draft = speculative_config(snapshot.draft)
        if snapshot.draft.source is not None:
            draft["model"] = places.of(snapshot.draft.source.path)
        found["speculative_config"] = draft
    return found


def command(snapshot: Snapshot, places: Places) -> list[str]:
    """The command line `vllm serve MODEL ...`, without host and port."""
    words = [NAME, "serve", places.of(snapshot.path), "--served-model-name", snapshot.name]
    for name, value in engine_arguments(snapshot, places).items():
        option = name.replace("_", "-")
        if value is True:
            words.append(f"--{option}")
        elif value is False:
            words.append(f"--no-{option}")
        else:
            words += [f"--{option}", json.dumps(value) if isinstance(value, dict) else str(value)]
    if snapshot.loras:
        words.append("--lora-modules")
        words += [json.dumps({"name": one.name, "path": places.of(one.path)}) for one in snapshot.loras]
    if snapshot.template is not None:
        words += ["--chat-template", places.template]
    return words


def environment(snapshot: Snapshot) -> Mapping[str, str]:
    """The size of the KV cache on a CPU; no usage statistics."""
    found = {"VLLM_NO_USAGE_STATS": "1"}
    if not snapshot.gpus:
        gib = snapshot.options.get("kv_cache_gib") or snapshot.kv_bytes / 2**30
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(math.ceil(gib), 1))
    return found
