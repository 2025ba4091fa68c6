"""Every change to vLLM's own classes, functions and objects, with its reason; no other file makes one.

Written for vLLM 0.32 (CPU) and 0.33 (CUDA). `tests/engines/vllm/test_patches.py` has a test for each, which fails when
vLLM's code no longer has the place, or no longer needs the change.

| change | to |
| --- | --- |
| `scan_safely` | a module's global, for good |
| `override_once` | a module's function, for good |
| `collect_less` | a global of three modules, for good |
| `keep_groups` | a global of a module, for good |
| `no_amx` | a function of torch that vLLM reads, for good |
| `fp8_without_onednn` | a method of a quantization kernel, for good |
| `import_rank_op` | an attribute of the platform, during an import |
| `inspect_in_process` | the registry of models, for good |
| `images_without_torchvision` | modules of transformers that vLLM imports, for good |
| `count_nans` | a method of an engine's client, for its life |
| `patch_expand_batch` | a module's function, for good |
| `watch_runner` | three methods of a model runner, for its life |
| `watch_prompt_logprobs` | two methods of a model runner, while texts are scored |
| `shut_down_one` | nothing: it repeats a method but for one line |
| `NotebookWorker` | a subclass of the CPU's worker |
| `llmlab.engines.vllm.lora` | subclasses of the CPU's LoRA layers and managers |
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.abc
import importlib.util
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

# A KV cache up to this size is touched at load, as in llama.cpp: otherwise the process appears to grow with each
# request until all blocks have been used once. Touching a larger one would delay the load.
TOUCHED_KV_BYTES = 2**30


def scan_safely() -> None:
    """Make vLLM's search for kernels skip objects whose `__dict__` isn't a dict.

    The first load reads `vars(value).get("kernel")` of every value in every module. numba contains one (llvmlite's
    library) that returns something for any attribute, so a load after its import would fail.
    """
    from vllm.triton_utils import dispatcher

    def instance_dict(value: Any) -> Any:
        found = vars(value)
        return found if isinstance(found, Mapping) else {}

    dispatcher.vars = instance_dict


def override_once() -> None:
    """Make vLLM's CPU build replace each Triton kernel by its own function once, not at every load.

    Each time it searches all modules for references to the kernel: 0.17 s (0.32).
    """
    from vllm.triton_utils import dispatcher

    real = dispatcher.register_kernels
    if hasattr(real, "__wrapped__"):
        return

    @functools.wraps(real)
    def register_kernels(overrides: Mapping[str, Any]) -> None:
        new = {name: own for name, own in overrides.items() if name not in dispatcher._registry}  # noqa: SLF001
        try:
            if new:
                real(new)
        except BaseException:  # an interrupted load
            for name in new:
                dispatcher._registry.pop(name, None)  # noqa: SLF001
            raise

    dispatcher.register_kernels = register_kernels


def collect_less() -> None:
    """Make vLLM collect garbage once per load, and leave it to `process.release_memory` at an unload.

    It did so three times per load and three times per unload, at 0.3 to 0.4 s each: the heap has 750,000 objects after
    the import (0.32). The collection that remains is `freeze_gc_heap`, at the end of a load.
    """
    from vllm.distributed import parallel_state
    from vllm.model_executor.model_loader import base_loader
    from vllm.v1.worker import gpu_model_runner

    for module in (base_loader, gpu_model_runner, parallel_state):
        module.gc = SimpleNamespace(collect=lambda: 0, unfreeze=gc.unfreeze)


def keep_groups() -> None:
    """Make a core of this process leave the distributed groups: `Shared.shut_down` destroys them with the last one.

    The groups are the process's. A core that was dropped during its load (Ctrl-C, damaged weights) destroyed those of
    the loaded models, whose next step failed: "pipeline model parallel group is not initialized" (0.32).
    """
    from vllm.v1.engine import core

    core.cleanup_dist_env_and_memory = _nothing


def _nothing() -> None: ...


def no_amx() -> None:
    """Make vLLM's CPU build use its attention kernels for AVX-512 on a CPU with AMX, too.

    With those for AMX a request's text depends on its batch (5 of 16 greedy texts of nano differed), and vLLM doesn't
    request AMX from Linux, so that a fresh process ended with SIGILL (0.32). oneDNN's matrix products keep AMX.
    """
    import torch

    torch.cpu._is_amx_tile_supported = _false  # noqa: SLF001 - the name that vLLM reads


def _false() -> bool:
    return False


def fp8_without_onednn() -> None:
    """Compute fp8 matrix products without oneDNN on the CPU.

    With AMX but without its fp16 part (Sapphire Rapids), oneDNN 3.x takes them with its reference code: 64 rows of nano
    took 335 ms, without oneDNN 21 ms (torch 2.13).
    """
    import torch
    from vllm.model_executor.kernels.linear.scaled_mm.pytorch import ChannelWiseTorchFP8ScaledMMLinearKernel as Kernel

    real = Kernel.apply_scaled_mm
    if hasattr(real, "__wrapped__"):
        return

    @functools.wraps(real)
    def apply_scaled_mm(self: Any, *args: Any, **options: Any) -> Any:
        enabled = torch._C._get_mkldnn_enabled()  # noqa: SLF001 - `torch.backends.mkldnn.flags` changes more
        torch._C._set_mkldnn_enabled(False)  # noqa: FBT003, SLF001
        try:
            return real(self, *args, **options)
        finally:
            torch._C._set_mkldnn_enabled(enabled)  # noqa: SLF001

    Kernel.apply_scaled_mm = apply_scaled_mm


def import_rank_op(platform: Any) -> None:
    """Import the op that ranks a token for its log probability, without inductor.

    vLLM compiles it even in eager mode, at the first request for log probabilities: this takes seconds during
    a decode, and needs a C++ compiler.
    """
    platform.simple_compile_backend = "eager"  # read by the decorator; set on this instance, temporarily
    try:
        import vllm.v1.sample.ops.logprobs  # noqa: F401
    finally:
        del platform.simple_compile_backend


def inspect_in_process(architecture: str) -> None:
    """Make vLLM inspect the model's class in this process; by default it starts a Python that imports vLLM again.

    Raises:
        ImportError: the class's module needs a package that isn't installed. (vLLM's own error leaves out which.)
    """
    from vllm.model_executor.models import ModelRegistry

    entry = ModelRegistry.models.get(architecture)
    if entry is not None and type(entry).__name__ == "_LazyRegisteredModel":
        ModelRegistry.register_model(architecture, entry.load_model_cls())


def images_without_torchvision() -> None:
    """Let vLLM import its vision models where torchvision isn't installed.

    They import transformers' image processors for torchvision; of most, it has one for PIL in a module beside it, which
    it uses itself then. For those, the names of the first come from the second, for good.
    """
    if importlib.util.find_spec("torchvision") is None and not any(isinstance(one, _ForPIL) for one in sys.meta_path):
        sys.meta_path.insert(0, _ForPIL())


class _ForPIL(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads transformers' image processors for PIL in the place of those for torchvision."""

    _MODULE = re.compile(r"(transformers\.models\.\w+\.image_processing_)(?!pil_|auto)(\w+)")

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The module's spec if there is one for PIL beside it."""
        del path, target
        found = self._MODULE.fullmatch(name)
        if found is None or importlib.util.find_spec(f"{found[1]}pil_{found[2]}") is None:
            return None
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with the names of the one for PIL, and its classes without the suffix Pil."""
        found = self._MODULE.fullmatch(module.__name__)
        assert found is not None
        names = vars(importlib.import_module(f"{found[1]}pil_{found[2]}"))
        vars(module).update({name: value for name, value in names.items() if not name.startswith("__")})
        vars(module).update({name.removesuffix("Pil"): value for name, value in names.items() if name.endswith("Pil")})


def count_nans(llm: Any) -> dict[str, float]:
    """Record which requests a core in a child process reports NaN for (`VLLM_COMPUTE_NANS_IN_LOGITS`)."""
    found: dict[str, float] = {}
    real = llm.engine_core.get_output

    def get_output() -> Any:
        outputs = real()
        for one in outputs.outputs:
            if one.num_nans_in_logits:
                found[one.request_id.split("-", 1)[0]] = math.nan
        return outputs

    llm.engine_core.get_output = get_output
    return found


def patch_expand_batch() -> None:
    """Fix a function that is broken in the CPU build (vLLM 0.32): it expands a request's temperature to its drafts.

    `cpu_triton_utils._expand_kernel_impl` writes the result into a copy, so the logits are divided by uninitialized
    memory, and sampled text is noise (nano's mean log probability falls from -0.6 to -8). Top-k and top-p are
    affected too.
    """
    from vllm.v1.sample import rejection_sampler

    rejection_sampler.expand_batch_to_tokens = expand


def expand(x: Any, cu_num_tokens: Any, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
    """Replaces `vllm.v1.sample.rejection_sampler.expand_batch_to_tokens`: repeats a request's value per drafted token.

    Args:
        x: values, shape (requests,).
        cu_num_tokens: cumulative number of drafted tokens, shape (requests,).
        num_tokens: total number of drafted tokens.
        replace_from, replace_to: a value to replace, and its replacement.
    """
    import torch

    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    values = torch.where(x == replace_from, torch.full_like(x, replace_to), x)
    return torch.repeat_interleave(values, counts.long(), output_size=num_tokens)


def watch_runner(
    runner: Any, propose: Callable[..., Any], execute: Callable[..., Any], sample: Callable[..., Any]
) -> None:
    """Put functions around a model runner's steps, for its life: vLLM counts guesses over all requests only.

    Args:
        runner: vLLM's model runner.
        propose: called instead of `propose_draft_token_ids`, with the method itself before its arguments.
        execute: the same for `execute_model`.
        sample: the same for `sample_tokens`.
    """
    runner.propose_draft_token_ids = functools.partial(propose, runner.propose_draft_token_ids)
    runner.execute_model = functools.partial(execute, runner.execute_model)
    runner.sample_tokens = functools.partial(sample, runner.sample_tokens)


@contextmanager
def watch_prompt_logprobs(llm: Any, keep: Callable[[str, int, Any], None]) -> Iterator[None]:
    """Pass on the matrices that the runner computes for prompts' log probabilities.

    Args:
        llm: vLLM's LLMEngine.
        keep: called with a request's id in the core, the position in its prompt that the first row follows, and
            the matrix.
    """
    runner = llm.model_executor.driver_worker.worker.model_runner
    sampler = runner.sampler
    gather, prompts = sampler.gather_logprobs, runner._get_prompt_logprobs_dict  # noqa: SLF001 - not available elsewhere
    # The requests whose matrices are computed next: one call of `gather_logprobs` for each.
    due: deque[tuple[str, int]] = deque()

    def watched_prompts(hidden: Any, scheduled: Mapping[str, int]) -> Any:
        for key in runner.num_prompt_logprobs:
            request = runner.requests[key]
            start = request.num_computed_tokens
            if min(scheduled.get(key, 0), len(request.prompt_token_ids) - 1 - start) > 0:
                due.append((key, start))
        try:
            return prompts(hidden, scheduled)
        finally:
            due.clear()

    def watched_gather(logprobs: Any, *args: Any, **options: Any) -> Any:
        if due:
            keep(*due.popleft(), logprobs)
        return gather(logprobs, *args, **options)

    # Patched on the instances, during these requests.
    runner._get_prompt_logprobs_dict = watched_prompts  # noqa: SLF001
    sampler.gather_logprobs = watched_gather
    try:
        yield
    finally:
        del runner._get_prompt_logprobs_dict, sampler.gather_logprobs  # noqa: SLF001


def shut_down_one(client: Any) -> None:
    """Shut one of several in-process engines down.

    `EngineCore.shutdown()` but for its last step, which destroys the distributed groups that the others still use.

    Args:
        client: vLLM's InprocClient.
    """
    core = client.engine_core
    client._finalizer.detach()  # noqa: SLF001
    core.structured_output_manager.clear_backend()
    core.model_executor.shutdown()
    core.scheduler.shutdown()


def _touch(found: list[Any]) -> None:
    caches = [one for one in found if hasattr(one, "nbytes")]
    if sum(one.nbytes for one in caches) <= TOUCHED_KV_BYTES:
        for one in caches:
            one.zero_()


@functools.cache
def _notebook_worker() -> type:  # noqa: C901 - counts the methods of the class
    import numpy as np
    import psutil
    import torch
    from vllm.v1.worker.cpu_worker import CPUWorker

    from llmlab.engines.vllm.lora import wrap
    from llmlab.guided.compiler import measure

    class NotebookWorker(CPUWorker):  # type: ignore[misc]
        """A CPU worker that doesn't affect the rest of the process and sizes its KV cache by the model."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Skips CPUWorker.__init__: it moves all pages of the process to one NUMA node, binds the process's memory
            # there (and reports so on the C-level stderr), and requests a share of the total RAM.
            super(CPUWorker, self).__init__(*args, **kwargs)
            self.parallel_config.disable_custom_all_reduce = True
            self.requested_cpu_memory = 0
            self.guided_steps: dict[str, list[Any]] = {}
            self.not_finite: dict[str, float] = {}
            self._lora: Any = None

        def load_model(self, **options: Any) -> None:
            # Layers with adapter slots cost time in every step, so they are created at the first adapter.
            runner = self.model_runner
            self._lora, runner.lora_config = runner.lora_config, None
            super().load_model(**options)

        def add_lora(self, lora_request: Any) -> bool:
            if self._lora is not None:
                wrap(self, self._lora)
                self._lora = None
            return bool(super().add_lora(lora_request))

        def init_device(self) -> None:
            # CPUWorker replaces torch.set_num_threads process-wide, including for the user's code.
            real = torch.set_num_threads
            try:
                super().init_device()
            finally:
                torch.set_num_threads = real

        def sample_tokens(self, grammar_output: Any) -> Any:
            # The mask is applied to the logits in place, so this is the only point where both are available.
            state = self.model_runner.execute_model_state
            masks = grammar_output is not None and grammar_output.grammar_bitmask is not None
            # With a draft a request has several rows, which can't be attributed here.
            if masks and state is not None and self.vllm_config.speculative_config is None:
                self._note_guided(grammar_output, state[1])
            if state is not None and state[1] is not None:
                self._note_not_finite(state[1])
            return super().sample_tokens(grammar_output)

        def _note_not_finite(self, logits: torch.Tensor) -> None:
            """Record the requests whose largest logit isn't finite. The sampler would draw a token anyway."""
            # One operation of torch: on a tiny model's logits it costs as much as all of this method's Python.
            peaks = logits.amax(dim=-1).tolist()
            bad = [(row, peak) for row, peak in enumerate(peaks) if not math.isfinite(peak)]
            if not bad:
                return
            requests = self.model_runner.input_batch.req_ids
            # With a draft a request has several rows, which can't be attributed here, so all requests fail.
            alone = len(peaks) == len(requests)
            for request, peak in (
                ((requests[row], peak) for row, peak in bad) if alone else ((r, bad[0][1]) for r in requests)
            ):
                self.not_finite[request.split("-", 1)[0]] = peak

        def _note_guided(self, output: Any, logits: torch.Tensor) -> None:
            rows = self.model_runner.input_batch.req_id_to_index
            for request, mask in zip(output.structured_output_request_ids, output.grammar_bitmask, strict=False):
                if request in rows:
                    raw = logits[rows[request]].float().clone().numpy()
                    blocked = np.unpackbits(~mask.view(np.uint8), bitorder="little")[: raw.size].view(np.bool_)
                    # vLLM appends a suffix to the request id.
                    key = request.split("-", 1)[0]
                    self.guided_steps.setdefault(key, []).append((measure(raw, blocked), raw))

        def determine_available_memory(self) -> int:
            cache = self.cache_config
            if cache.kv_cache_memory_bytes is None:
                cache.kv_cache_memory_bytes = self._kv_cache_bytes()
            return int(super().determine_available_memory())

        def initialize_from_config(self, kv_cache_config: Any) -> None:
            super().initialize_from_config(kv_cache_config)
            _touch(self.model_runner.kv_caches)

        def _kv_cache_bytes(self) -> int:
            """All sequences at full length plus one block; at most half the free RAM, at least one sequence."""
            specs = self.get_kv_cache_spec().values()
            sequence = sum(spec.max_memory_usage_bytes(self.vllm_config) for spec in specs)
            block = sum(spec.page_size_bytes for spec in specs)
            wanted = sequence * self.scheduler_config.max_num_seqs + block
            return int(max(min(wanted, psutil.virtual_memory().available // 2), sequence + block))

    return NotebookWorker


def __getattr__(name: str) -> Any:
    if name == "NotebookWorker":
        return _notebook_worker()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
