"""What a load in vLLM would start: its arguments, its processes, and the line of a server with the same ones."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from llmlab.engines.base import LoadPlan
from llmlab.engines.vllm import options
from llmlab.machine.hardware import Hardware
from llmlab.types.parallel import Parallel

# Arguments that say something of the kernel, or that are the same for every load.
_OWN = ("logits_processors", "worker_cls", "disable_log_stats", "use_tqdm_on_load", "generation_config")


def arguments(plan: LoadPlan, hardware: Hardware) -> dict[str, Any]:
    """The keyword arguments of `vllm.EngineArgs` for a plan. See `Engine.arguments`."""
    in_kernel = hardware == "CPU" and plan.parallel.per_copy == 1
    resolved = options.resolve(plan, cpu=in_kernel, header=plan.source.header, build=hardware)
    found = {name: value for name, value in resolved.args.items() if name not in _OWN and value is not None}
    if plan.parallel.data > 1:
        found["data_parallel_size"] = plan.parallel.data
    return found


def processes(parallel: Parallel, hardware: Hardware) -> dict[str, int]:
    """A core for each copy, which computes itself if it has one GPU; else a worker for each GPU."""
    if hardware == "CPU" and parallel.per_copy == 1:
        return {}
    workers = {"worker": parallel.gpus} if parallel.per_copy > 1 else {}
    return {"core": parallel.data} | workers


def server(arguments: Mapping[str, Any]) -> str:
    """The `vllm serve` line with the same arguments."""
    words = ["vllm serve", shlex.quote(str(arguments["model"]))]
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "model" or value is False:
            continue
        if value is True:
            words.append(flag)
        else:
            text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
            words.append(f"{flag} {shlex.quote(text)}")
    return " ".join(words)
