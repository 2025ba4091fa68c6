"""Builds vLLM's engine on the thread that will step it, and cleans up after a failed or interrupted load."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import math
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from llmlab.config import scratch
from llmlab.engines.base import EngineLog, LoadPlan
from llmlab.engines.logits import not_finite
from llmlab.engines.registry import INSTALL
from llmlab.engines.vllm import child, logs, patches, pooled
from llmlab.engines.vllm.guided import Seen
from llmlab.engines.vllm.options import VllmOptions, bound_cores, resolve
from llmlab.engines.vllm.process import SHARED, release_memory
from llmlab.errors import EngineMissingError, LoadError
from llmlab.files import pooling
from llmlab.files.headers import Header
from llmlab.files.pooling import Embedding
from llmlab.machine import hardware, nvml
from llmlab.types.parallel import Parallel

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_GUIDED = (
    "llguidance.hf",
    "llguidance.torch",
    "vllm.v1.structured_output.backend_lm_format_enforcer",
    "vllm.v1.structured_output.backend_outlines",
    "xgrammar.kernels.apply_token_bitmask_inplace_cpu",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A built engine.

    Attributes:
        llm: vLLM's LLMEngine.
        in_process: the engine core runs in this process.
        threads_before: torch's thread count for new threads before the load, to be restored.
        resident: bytes that the load added to the process and its children, excluding the import of vLLM.
        not_finite: filled by the engine's steps; see `take_not_finite`.
        embedding: what an embedding model or a reranker does with a text.
    """

    llm: Any
    settings: VllmOptions
    in_process: bool
    threads_before: int
    resident: int
    not_finite: dict[str, float]
    embedding: Embedding | None = None

    @property
    def processed(self) -> bool:
        """Whether it has llmlab's logits processors (see `options.resolve`)."""
        return "logits_processors" in self.settings.args

    def seen(self, key: str, count: int | None) -> Sequence[Seen]:
        """What the worker recorded of a guided request's next steps; empty for a core in a child process.

        Args:
            key: the request's id.
            count: how many steps to return; None returns and removes all.
        """
        if not self.in_process:
            return ()
        notes: dict[str, list[Seen]] = self.llm.model_executor.driver_worker.worker.guided_steps
        found = notes.get(key, [])
        taken = found[:count]
        if count is None:
            notes.pop(key, None)
        else:
            del found[:count]
        return taken

    def take_not_finite(self) -> dict[str, float]:
        """The requests whose logits became NaN or infinite since the last call, with their largest logit."""
        found = dict(self.not_finite)
        self.not_finite.clear()
        return found


def import_error(error: BaseException) -> LoadError:
    """The error for a failed `import vllm`, with the suggested fix.

    The most common cause: torchvision, torchaudio or torchcodec built for CUDA next to a CPU torch.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
        return EngineMissingError("vllm isn't installed.", f"{INSTALL['vllm']}.")
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    mismatched = mismatched_companions()
    if "torchvision::nms" in str(error) or any(name in str(error) for name in COMPANIONS) or mismatched:
        what = ", ".join(mismatched) or "torchvision"
        return LoadError(
            f"Can't import vLLM: {what} was built for a different torch than the one installed ({text}).",
            "vLLM works without them: pip uninstall -y torchvision torchaudio torchcodec, then restart the kernel.",
        )
    return LoadError(f"Can't import vLLM: {text}.", "Check the installation with %llm doctor.")


def suggested_fix(text: str) -> str:
    """What to do about a failed load, by its error's text."""
    if "torchvision" not in text.lower():
        return "See the full log with %llm logs."
    # torch 2.0 belongs to torchvision 0.15, 2.13 to 0.28.
    torch, _, build = importlib.metadata.version("torch").partition("+")
    wanted = f"0.{int(torch.split('.')[1]) + 15}.*"
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return (
        "Load its GGUF file and projector with --engine llamacpp, or install torchvision of the same build as torch, "
        f'pip install "torchvision=={wanted}"{index}, and restart the kernel.'
    )


def mismatched_companions() -> list[str]:
    """Installed torch companions whose build tag (+cpu, +cu130, none) isn't torch's, as `name version`."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    torch = version("torch")
    if torch is None:
        return []
    build = torch.partition("+")[2]
    found = [(name, version(name)) for name in COMPANIONS]
    return [f"{name} {number}" for name, number in found if number is not None and number.partition("+")[2] != build]


def import_vllm() -> None:
    """Import all of vLLM that a load needs (about ten seconds the first time).

    Raises:
        LoadError: it can't be imported.
        EngineMissingError: it isn't installed.
    """
    try:
        import vllm
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            patches.import_rank_op(current_platform)
            patches.images_without_torchvision()
        import vllm.engine.arg_utils
        import vllm.model_executor.model_loader
        import vllm.v1.core.sched.scheduler
        import vllm.v1.engine.llm_engine
        import vllm.v1.executor.uniproc_executor

        if current_platform.is_cpu():
            import vllm.v1.worker.cpu_worker  # noqa: F401

            patches.no_amx()
            patches.scan_safely()
            patches.override_once()
            patches.collect_less()
            patches.keep_groups()
            patches.fp8_without_onednn()
        # Otherwise the first guided request imports these.
        for name in _GUIDED:
            importlib.import_module(name)
    except Exception as error:
        raise import_error(error) from error


def build(
    plan: LoadPlan, header: Header, log: EngineLog, key: int, announce: Callable[[str], None], *, in_process: bool
) -> Loaded:
    """Build the engine. Call it on the thread that steps it, after `import_vllm`.

    In this process it needs `SHARED.turns`.

    Args:
        plan: what to load.
        header: the folder's headers.
        log: its file also receives a child process's output.
        key: this engine's key in `SHARED.live`.
        announce: called with each phase as it begins.
        in_process: the core runs in this process, not in a child.
    """
    import torch
    from vllm import envs
    from vllm.config.logging import LoggingConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor import Executor

    settings = resolve(plan, cpu=in_process, header=header)
    threads_before = torch.get_num_threads()
    before = _resident()
    announce("weights")
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.process_state())
        if in_process:
            # vLLM keeps a user's setting; without one it drops to one thread after the load.
            stack.enter_context(logs.environment({"OMP_NUM_THREADS": str(settings.threads)}))
            torch.set_num_threads(settings.threads)
            patches.inspect_in_process(header.architecture)
            logging_config = LoggingConfig(log_level="WARNING", configure_logging=False)
        else:
            folder = stack.enter_context(scratch())
            stack.enter_context(child.own_session(log.path))
            file = child.log_config(log.path, folder)
            logging_config = LoggingConfig(configure_logging=True, pylogging_config_file=str(file))
        envs.disable_envs_cache()
        config = EngineArgs(**settings.args, logging_config=logging_config).create_engine_config()
        SHARED.live.add(key)
        llm = LLMEngine(config, Executor.get_class(config), log_stats=False, multiprocess_mode=not in_process)
    nans = llm.model_executor.driver_worker.worker.not_finite if in_process else patches.count_nans(llm)
    taken = max(_resident() - before, 0)
    return Loaded(llm, settings, in_process, threads_before, taken, nans, pooling.of(header))


def probe(loaded: Loaded) -> None:
    """Compute one token, or one vector, to detect damaged weights at load. Call it on the thread that steps the engine.

    Raises:
        GenerationError: the logits are NaN or infinite.
    """
    from vllm.sampling_params import SamplingParams

    if loaded.embedding is not None:
        pooled.embed(loaded.llm, [[0]], loaded.embedding, None, separator=None)
        return
    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=0, flat_logprobs=True, detokenize=False)
    loaded.llm.add_request("probe", {"type": "token", "prompt_token_ids": [0]}, params)
    output: Any = None
    while output is None or not output.finished:
        output = next(iter(loaded.llm.step()), output)
    peaks = [*loaded.take_not_finite().values(), *output.outputs[0].logprobs.logprobs]
    wrong = next((peak for peak in peaks if not math.isfinite(peak)), None)
    if wrong is not None:
        raise not_finite(wrong)


def on_cpu() -> bool:
    """Whether the installed vLLM is the CPU build."""
    return hardware.vllm_build() == "CPU"


def runs_in_process(parallel: Parallel | None = None) -> bool:
    """Whether cores run in this process: on the CPU, where a child would cost 15 seconds and a second copy.

    A model that is split over processes has its core in a child, on the CPU, too.

    The only place that decides it: a loaded engine has it in `Loaded.in_process`.
    """
    return on_cpu() and (parallel is None or parallel.per_copy == 1)


def environment(*, in_process: bool, gpu: int | None = None, split: int = 1) -> dict[str, str]:
    """The variables that vLLM and its child process read while it is imported and loaded.

    Args:
        in_process: the core runs in this process, not in a child.
        gpu: the only GPU that the child uses, as CUDA counts those of this process; None: all of them.
        split: processes that the model is split over.
    """
    chosen = {"VLLM_CPU_OMP_THREADS_BIND": bound_cores(split)} if split > 1 and on_cpu() else {}
    chosen |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": nvml.visible()[gpu].uuid}
    return chosen | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if in_process else "1",
        # A kernel has threads, and forking a process with threads may deadlock.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        # Its import would replace the handlers of the `vllm` logger, among them the log's tap. A child has its own
        # configuration (`child.log_config`).
        "VLLM_CONFIGURE_LOGGING": "0",
        # In process, the worker checks itself. A child's counts stay on the GPU and arrive with the step's outputs.
        "VLLM_COMPUTE_NANS_IN_LOGITS": "0" if in_process else "1",
        # oneDNN caches the code it generates per matrix shape, and each number of tokens in a step is a shape. Its
        # default of 1,024 grew nano's process by 60 MB over about a thousand requests; 64 grew it by 1 MB, at the
        # same speed. Read once, at the first matrix product.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"),
    }


def error_text(error: BaseException) -> str:
    """An error of vLLM in one line: its type and message; of pydantic's, the messages of all fields."""
    name = type(error).__name__
    errors = getattr(error, "errors", None)
    if callable(errors):
        with contextlib.suppress(Exception):
            return f"{name}: " + "; ".join(" ".join(str(one["msg"]).split()) for one in errors())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{name}: {lines[0] if lines else ''}".removesuffix(": ")


def clean_up(key: int, error: BaseException | None, cores: set[int]) -> None:
    """Release what a failed or interrupted load left: processes, objects, groups, memory. Hold `SHARED.turns`.

    Args:
        key: the engine's key in `SHARED.live`.
        error: what ended the load; its frames hold the incomplete engine.
        cores: process ids of the engine cores that existed before.
    """
    child.kill(child.cores() - cores)
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    SHARED.shut_down(key, None)
    release_memory()


def _resident() -> int:
    """Bytes resident in this process and its children."""
    me = psutil.Process()
    total = int(me.memory_info().rss)
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += int(process.memory_info().rss)
    return total


def in_import(thread: threading.Thread) -> bool:
    """Whether a thread is inside an import; interrupting it would leave an incomplete module for the next load."""
    import sys

    frame = sys._current_frames().get(thread.ident or -1)  # noqa: SLF001 - the documented way to inspect another thread
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
