"""Nano, loaded directly in the engine."""

import contextlib
import threading
from pathlib import Path

import pytest

from llmlab.engines.base import EngineLog, LoadPlan
from llmlab.engines.vllm import VllmEngine, logs
from llmlab.engines.vllm import engine as vllm_engine
from llmlab.engines.vllm import load as vllm_load
from llmlab.files.source import Source
from llmlab.types.parallel import Parallel
from tests.hub.fakes import NANO

# float32: on a CPU with AMX the kernels for bf16 need a permission that only llmlab's own process asks for.
CHILD_OPTIONS = {"dtype": "float32", "enforce_eager": True, "kv_cache_gib": 0.02, "max_loras": 2, "max_lora_rank": 16}


@contextlib.contextmanager
def forced():
    """Loads in this block run their core in a child process."""
    # Imported first: torch reads TORCHDYNAMO_DISABLE when it is imported, and this process keeps what it read.
    with logs.environment(vllm_load.environment(in_process=True)):
        vllm_load.import_vllm()
    with pytest.MonkeyPatch.context() as patch:
        real = vllm_load.environment
        for module in (vllm_load, vllm_engine):
            patch.setattr(module, "runs_in_process", lambda _=None: False, raising=False)
        # The CPU's platform would put the worker into a further process; on one GPU the core computes itself. And
        # inductor would compile the op that ranks tokens, for 15 seconds.
        variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1"}
        patch.setattr(vllm_load, "environment", lambda **options: real(**options) | variables)
        yield


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Open an engine on nano (or another folder); the caller closes it."""
    logs = tmp_path_factory.mktemp("logs")

    def _load(path=NANO, *, ctx=512, concurrency=4, tp=1, progress=None, cancelled=None, log=None, **extra):
        plan = LoadPlan(
            Source(str(path), "nano", "safetensors", Path(path), "bf16"),
            context_length=ctx,
            parallel=Parallel(tensor=tp),
            max_concurrency=concurrency,
            extra=extra,
        )
        return VllmEngine.open(
            plan,
            log=log or EngineLog(logs / "engine.log"),
            progress=progress or (lambda phase, fraction: None),
            cancelled=cancelled or threading.Event(),
        )

    return _load


@pytest.fixture(scope="module")
def engine(load):
    """One engine per module, for tests that only send requests."""
    own = load()
    yield own
    own.close()
