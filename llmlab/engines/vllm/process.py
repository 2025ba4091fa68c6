"""What all vLLM engines of one process share, because vLLM itself keeps it in module globals.

The forward context of a step, the current config and default dtype of a load, and the distributed groups are
globals of vLLM and torch. Two engines work side by side only if one of them touches these at a time, and the groups
may go only with the last engine.
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
    """A lock that is handed over: who releases it lets a waiting thread go first."""

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
    """The process's one set of shared things. `turns` is held during a load, each step, and a shutdown."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.taps = TapSwitch()
        self.live: set[int] = set()

    def shut_down(self, key: int, engine: Any | None) -> None:
        """Shut an engine down (hold `turns`); vLLM's globals are cleared with the last one.

        Args:
            key: the engine's key in `live`.
            engine: vLLM's LLMEngine; None when a load failed before there was one.
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


def give_back_memory() -> None:
    """Collect what is unreachable and hand free pages back to the system."""
    gc.unfreeze()
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


SHARED = Shared()
