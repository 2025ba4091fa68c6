"""vLLM's CPU worker, adapted to run inside a notebook's kernel.

vLLM imports the class by name (`worker_cls`). It is created at the first lookup, because its base class can't
be referenced without importing vLLM.
"""

from __future__ import annotations

import functools
import math
from typing import Any

# A KV cache up to this size is touched at load, as in llama.cpp: otherwise the process appears to grow with each
# request until all blocks have been used once. Touching a larger one would delay the load.
TOUCHED_KV_BYTES = 2**30


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
            peaks = logits.amax(dim=-1)
            if bool(torch.isfinite(peaks).all()):
                return
            requests = self.model_runner.input_batch.req_ids
            # With a draft a request has several rows, which can't be attributed here, so all requests fail.
            alone = len(peaks) == len(requests)
            bad = [(row, peak) for row, peak in enumerate(peaks.tolist()) if not math.isfinite(peak)]
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
