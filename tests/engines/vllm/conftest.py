"""nano, loaded in the engine itself."""

import threading
from pathlib import Path

import pytest

from llmlab.engines.base import EngineLog, LoadPlan
from llmlab.engines.vllm import VllmEngine
from llmlab.files.source import Source
from tests.hub.fakes import NANO


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Open an engine on nano (or another folder); the caller closes it."""
    logs = tmp_path_factory.mktemp("logs")

    def _load(path=NANO, *, ctx=512, concurrency=4, tp=1, progress=None, cancelled=None, log=None, **extra):
        plan = LoadPlan(
            Source(str(path), "nano", "safetensors", Path(path), "bf16"),
            context_length=ctx,
            tensor_parallel=tp,
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
    """One engine for the tests of a module that only ask."""
    own = load()
    yield own
    own.close()
