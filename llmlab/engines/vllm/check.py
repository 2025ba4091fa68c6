"""Everything of vLLM's internals that llmlab uses, checked against an installed or unpacked vLLM without importing it.

    python -m llmlab.engines.vllm.check            # the installed one
    python -m llmlab.engines.vllm.check FOLDER     # the folder `vllm` of an unpacked wheel

The doctor runs it too. A missing name means that this release of vLLM needs a change here, or another version of it.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Use:
    """Names that llmlab uses in one of vLLM's files.

    Attributes:
        file: its path in the package.
        owner: a class or a function; "" for the module itself.
        names: methods, fields, attributes (of `self`) or parameters; of a module, what it defines.
        cpu: used with the CPU build only.
    """

    file: str
    owner: str
    names: tuple[str, ...]
    cpu: bool = False


def _use(file: str, owner: str, names: str, *, cpu: bool = False) -> Use:
    return Use(file, owner, tuple(names.split()), cpu)


USES = (
    # load.py, options.py
    _use(
        "engine/arg_utils.py",
        "EngineArgs",
        "model dtype max_model_len max_num_seqs tensor_parallel_size enforce_eager enable_prefix_caching "
        "pipeline_parallel_size distributed_executor_backend "
        "gpu_memory_utilization kv_cache_memory_bytes max_num_batched_tokens seed trust_remote_code generation_config "
        "max_logprobs logprobs_mode disable_log_stats use_tqdm_on_load structured_outputs_config quantization "
        "enable_lora max_loras max_lora_rank max_cpu_loras speculative_config block_size worker_cls tokenizer_mode "
        "config_format load_format logging_config create_engine_config",
    ),
    _use("config/logging.py", "LoggingConfig", "log_level configure_logging pylogging_config_file"),
    _use("config/structured_outputs.py", "StructuredOutputsConfig", "backend"),
    _use("config/speculative.py", "SpeculativeConfig", "method model num_speculative_tokens prompt_lookup_max"),
    _use("config/model.py", "ModelConfig", "max_model_len dtype enforce_eager"),
    _use(
        "config/cache.py",
        "CacheConfig",
        "kv_cache_size_tokens kv_cache_memory_bytes enable_prefix_caching cache_dtype gpu_memory_utilization",
    ),
    _use("config/scheduler.py", "SchedulerConfig", "max_num_seqs max_num_batched_tokens"),
    _use("config/vllm.py", "VllmConfig", "model_config cache_config scheduler_config speculative_config"),
    _use("envs.py", "", "disable_envs_cache VLLM_ENABLE_V1_MULTIPROCESSING VLLM_WORKER_MULTIPROC_METHOD"),
    _use("envs.py", "", "VLLM_COMPUTE_NANS_IN_LOGITS VLLM_CONFIGURE_LOGGING VLLM_NO_USAGE_STATS"),
    _use("v1/executor/abstract.py", "Executor", "get_class"),
    _use("platforms/interface.py", "Platform", "is_cpu get_device_name simple_compile_backend"),
    _use("model_executor/models/registry.py", "", "ModelRegistry"),
    _use("model_executor/model_loader/default_loader.py", "DefaultModelLoader", "load_weights"),
    # loop.py, child.py, scoring.py, adapters.py, images.py
    _use("v1/engine/llm_engine.py", "LLMEngine", "add_request step abort_request add_lora remove_lora get_tokenizer"),
    _use("v1/engine/llm_engine.py", "LLMEngine.__init__", "vllm_config executor_class log_stats multiprocess_mode"),
    _use("v1/engine/llm_engine.py", "LLMEngine.__init__", "self.engine_core self.renderer self.model_executor"),
    _use("v1/engine/llm_engine.py", "LLMEngine.add_request", "request_id prompt params lora_request"),
    _use("v1/engine/core_client.py", "SyncMPClient", "get_output call_utility"),
    _use("v1/engine/core_client.py", "SyncMPClient.__init__", "self.outputs_queue"),
    _use("v1/engine/core_client.py", "MPClient.__init__", "self.resources self.utility_results"),
    _use("v1/engine/core_client.py", "MPClient", "shutdown start_engine_core_monitor"),
    _use("v1/engine/core_client.py", "BackgroundResources", "engine_dead engine_manager"),
    _use("v1/engine/core.py", "EngineCoreProc", "process_input_sockets process_output_sockets run_engine_core"),
    _use("v1/engine/exceptions.py", "EngineDeadError", ""),
    _use("v1/engine/__init__.py", "EngineCoreOutput", "request_id num_nans_in_logits"),
    _use("v1/engine/__init__.py", "EngineCoreOutputs", "outputs"),
    _use("distributed/parallel_state.py", "", "cleanup_dist_env_and_memory"),
    _use("lora/request.py", "LoRARequest", "lora_name lora_int_id lora_path"),
    _use("renderers/base.py", "BaseRenderer", "render_cmpl shutdown"),
    # outputs.py, guided.py
    _use(
        "sampling_params.py",
        "SamplingParams",
        "temperature top_p top_k min_p seed max_tokens stop stop_token_ids ignore_eos logprobs prompt_logprobs "
        "flat_logprobs output_kind stream_interval structured_outputs skip_special_tokens include_stop_str_in_output "
        "skip_clone allowed_token_ids detokenize",
    ),
    _use("sampling_params.py", "StructuredOutputsParams", "json regex grammar"),
    _use("sampling_params.py", "RequestOutputKind", "DELTA"),
    _use("logprobs.py", "FlatLogprobs", "start_indices end_indices token_ids logprobs decoded_tokens"),
    _use("outputs.py", "CompletionOutput", "text token_ids logprobs finish_reason"),
    _use("outputs.py", "RequestOutput.__init__", "request_id outputs finished num_cached_tokens prompt_logprobs"),
    # patches.py and lora.py, on the CPU
    _use("v1/engine/core.py", "EngineCore", "shutdown", cpu=True),
    _use("v1/engine/core_client.py", "InprocClient", "get_output shutdown", cpu=True),
    _use("v1/worker/cpu_worker.py", "CPUWorker", "init_device determine_available_memory", cpu=True),
    _use("v1/worker/cpu_model_runner.py", "CPUModelRunner", "", cpu=True),
    _use(
        "v1/worker/gpu_model_runner.py",
        "GPUModelRunner",
        "propose_draft_token_ids execute_model sample_tokens _get_prompt_logprobs_dict",
        cpu=True,
    ),
    _use("v1/sample/sampler.py", "Sampler", "gather_logprobs", cpu=True),
    _use("v1/sample/rejection_sampler.py", "", "expand_batch_to_tokens", cpu=True),
    _use("v1/attention/backends/cpu_attn.py", "", "_get_attn_isa", cpu=True),
    _use("triton_utils/dispatcher.py", "", "", cpu=True),
    _use("lora/punica_wrapper/punica_cpu.py", "PunicaWrapperCPU", "add_lora_linear", cpu=True),
    _use("lora/model_manager.py", "LRUCacheLoRAModelManager", "activate_adapter", cpu=True),
    _use("lora/worker_manager.py", "LRUCacheWorkerLoRAManager", "_manager_cls", cpu=True),
    _use("lora/utils.py", "", "get_supported_lora_modules", cpu=True),
)


def missing(root: Path, *, cpu: bool) -> list[str]:
    """What llmlab uses and a vLLM doesn't have, as `file: Class.name`.

    Args:
        root: the package's folder.
        cpu: it is the CPU build; else the uses for the CPU are skipped.
    """
    return [
        f"{use.file}: {'.'.join(part for part in (use.owner, name) if part)}"
        for use in USES
        if cpu or not use.cpu
        for name in _lacking(root / use.file, use)
    ]


def _lacking(file: Path, use: Use) -> Iterator[str]:
    tree = _parsed(file)
    owner: ast.AST | None = tree
    for part in use.owner.split(".") if use.owner else ():
        owner = next((node for node in _body(owner) if getattr(node, "name", None) == part), None)
    if owner is None:
        yield use.names[0] if tree is not None and use.names else ""
        return
    there = set(_names(owner))
    yield from (name for name in use.names if name not in there)


def _body(node: ast.AST | None) -> list[ast.stmt]:
    return list(getattr(node, "body", ()))


def _names(owner: ast.AST) -> Iterator[str]:
    """What a module or class defines; a function's parameters, and the attributes that it sets on `self`."""
    if isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = owner.args
        yield from (one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
        for node in ast.walk(owner):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield f"self.{node.attr}"
        return
    for node in ast.walk(owner) if isinstance(owner, ast.Module) else owner.body:  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


@functools.cache
def _parsed(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None


def installed() -> Path | None:
    """The folder of the installed vLLM, without importing it."""
    spec = importlib.util.find_spec("vllm")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def main(arguments: list[str]) -> int:
    """Print what is missing; returns 1 if anything is."""
    from llmlab.machine import hardware

    root = Path(arguments[0]) if arguments else installed()
    if root is None or not root.is_dir():
        print("vLLM isn't installed." if not arguments else f"There is no folder {root}.")  # noqa: T201
        return 1
    cpu = not arguments and hardware.vllm_build() == "CPU"
    found = missing(root, cpu=cpu)
    for line in found:
        print(line)  # noqa: T201
    uses = [use for use in USES if cpu or not use.cpu]
    count = sum(len(use.names) or 1 for use in uses)
    print(f"{count - len(found)} of {count} names that llmlab uses are in {root}.")  # noqa: T201
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
