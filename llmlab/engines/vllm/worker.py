"""vLLM's CPU worker, made fit for a process that belongs to a notebook.

vLLM finds the class by its name (`worker_cls`). It is built at the first look-up, since a class of its
base can't be written without importing vLLM.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def _notebook_worker() -> type:
    import psutil
    import torch
    from vllm.v1.worker.cpu_worker import CPUWorker

    class NotebookWorker(CPUWorker):  # type: ignore[misc]
        """A CPU worker that leaves the rest of the process alone and sizes its KV cache by the model."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Past CPUWorker.__init__ on purpose: it moves all pages of the process to one NUMA node, binds the
            # process's memory there (and says so on the C-level stderr), and wants a share of the whole RAM.
            super(CPUWorker, self).__init__(*args, **kwargs)
            self.parallel_config.disable_custom_all_reduce = True
            self.requested_cpu_memory = 0

        def init_device(self) -> None:
            # CPUWorker replaces torch.set_num_threads for the whole process, the user's code included.
            real = torch.set_num_threads
            try:
                super().init_device()
            finally:
                torch.set_num_threads = real

        def determine_available_memory(self) -> int:
            cache = self.cache_config
            if cache.kv_cache_memory_bytes is None:
                cache.kv_cache_memory_bytes = self._kv_cache_bytes()
            return int(super().determine_available_memory())

        def _kv_cache_bytes(self) -> int:
            """All sequences at full length and one block to spare, at most half the free RAM, at least one sequence."""
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
