"""State that all vLLM engines in a process share, because vLLM keeps it in module globals.

The forward context of a step, the current config and default dtype of a load, and the distributed groups are
globals of vLLM and torch. Several engines can run in one process only if they access these one at a time, and the
groups may be destroyed only with the last engine.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from typing import Any

from llmlab.engines.vllm import patches
from llmlab.engines.vllm.logs import TapSwitch


class Turns:
    """A fair lock: releasing it lets a waiting thread acquire it first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._count = threading.Lock()

    def __enter__(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        with self._count:
            self._waiting += 1
        try:
            self._lock.acquire()
        finally:
            with self._count:
                self._waiting -= 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._waiting:
            time.sleep(1e-4)


class Shared:
    """The process-wide shared state.

    `turns` is held during a load, a step and a shutdown of an engine in this process; `loading` during any load, which
    changes the process's environment.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self.loading = threading.Lock()
        self.taps = TapSwitch()
        self.live: set[int] = set()

    def shut_down(self, key: int, engine: Any | None) -> None:
        """Shut down an engine, holding `turns`. The last one also clears vLLM's globals.

        Args:
            key: the engine's key in `live`.
            engine: vLLM's LLMEngine; None if a load failed before creating it.
        """
        self.live.discard(key)
        if engine is not None:
            core = getattr(engine.engine_core, "engine_core", None)
            if core is None or not self.live:
                engine.engine_core.shutdown()
            else:
                patches.shut_down_one(engine.engine_core)
            engine.renderer.shutdown()
        if not self.live and "vllm.distributed.parallel_state" in sys.modules:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()


def release_memory() -> None:
    """Collect garbage and return free pages to the system."""
    gc.unfreeze()
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


SHARED = Shared()
