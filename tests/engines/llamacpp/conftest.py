"""nano as a real GGUF file, loaded in the engine itself."""

import threading
from pathlib import Path

import pytest

from llmlab.engines.base import EngineLog, LoadPlan
from llmlab.engines.llamacpp import LlamaCppEngine
from llmlab.files.source import Source
from tests.hub.fakes import NANO


@pytest.fixture(scope="session")
def gguf():
    """nano's F16 GGUF file."""
    from llmlab.quant.gguf_cache import to_gguf

    return to_gguf(NANO)


@pytest.fixture(scope="session")
def load(gguf, tmp_path_factory):
    """Open an engine on nano (or another file); the caller closes it."""
    logs = tmp_path_factory.mktemp("logs")

    def _load(path=gguf, *, ctx=1024, concurrency=4, progress=None, cancelled=None, gpu_layers=None, log=None, **extra):
        plan = LoadPlan(
            Source(str(path), "nano", "gguf", Path(path), "F16", base=NANO),
            context_length=ctx,
            gpu_layers=gpu_layers,
            max_concurrency=concurrency,
            # One thread: two cores are shared with the other tests' engines, and OpenMP spins where it waits.
            extra={"n_threads": 1, **extra},
        )
        return LlamaCppEngine.open(
            plan,
            log=log or EngineLog(logs / "engine.log"),
            progress=progress or (lambda phase, share: None),
            cancelled=cancelled or threading.Event(),
        )

    return _load


@pytest.fixture(scope="module")
def engine(load):
    """One engine for the tests of a module that only ask."""
    own = load()
    yield own
    own.close()
