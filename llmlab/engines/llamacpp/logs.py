"""Where llama.cpp's own messages go: to the log of the engine that is at work on the thread they come from.

llama.cpp has one log callback for the whole process, so there is one router, made at the first load.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from llmlab.engines.base import EngineLog

# enum ggml_log_level (ggml.h)
_DEBUG = 1
_CONTINUED = 5


# A line for every input of every layer, at each new graph: hundreds that say nothing to a user.
_NOISE = b"llama_graph_n_input_tensors"


class Writer(Protocol):
    """What takes messages: an engine's log, or something in front of it."""

    def write(self, text: str) -> None:
        """Take text; lines may come in pieces."""


class MemoryEar:
    """Passes messages on to a log and adds up the KV cache (or recurrent state) buffers that they tell of.

    llama.cpp has no function that says how large they are.
    """

    def __init__(self, log: EngineLog) -> None:
        self._log = log
        self.kv_bytes = 0

    def write(self, text: str) -> None:
        """Take text; a buffer's line comes in one piece."""
        found = re.search(r"(?:KV|RS) buffer size\s*=\s*([\d.]+) MiB", text)
        if found:
            self.kv_bytes += int(float(found[1]) * 2**20)
        self._log.write(text)


class LogRouter:
    """The permanent C callback. Messages of threads that no engine has bound go where they went before."""

    def __init__(self) -> None:
        import llama_cpp

        self._bound = threading.local()
        # What was installed before serves a user who calls llama_cpp directly, in the same process.
        self._before: Any = llama_cpp.llama_log_callback()
        self._before_data = ctypes.c_void_p()
        llama_cpp.llama_log_get(ctypes.byref(self._before), ctypes.byref(self._before_data))
        # The attribute keeps the C callback alive as long as llama.cpp may call it: always.
        self._callback = llama_cpp.llama_log_callback(self._write)
        llama_cpp.llama_log_set(self._callback, None)

    def _write(self, level: int, text: bytes | None, _data: Any) -> None:
        # No exception may leave a C callback, and none of its helpers may be relied on while Python shuts down.
        if text is None or sys is None or sys.is_finalizing():
            return
        log: Writer | None = getattr(self._bound, "log", None)
        if log is None:
            if self._before:
                self._before(level, text, self._before_data)
            return
        if level != _CONTINUED:
            self._bound.dropping = level == _DEBUG or text.startswith(_NOISE)
        if not getattr(self._bound, "dropping", False):
            log.write(text.decode("utf-8", "replace"))

    @contextmanager
    def to(self, log: Writer) -> Iterator[None]:
        """Send what llama.cpp says on this thread to `log` for the time of the block."""
        before = getattr(self._bound, "log", None)
        self._bound.log = log
        try:
            yield
        finally:
            self._bound.log = before


@functools.cache
def router() -> LogRouter:
    """The process's one router; the first call imports llama_cpp and installs it."""
    return LogRouter()
