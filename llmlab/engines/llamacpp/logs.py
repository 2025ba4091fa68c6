"""Where llama.cpp's own messages go: to the log of the engine that is at work on the thread they come from.

llama.cpp has one log callback for the whole process, so there is one router, made at the first load.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmlab.engines.base import EngineLog

# enum ggml_log_level (ggml.h)
_DEBUG = 4
_CONTINUED = 5


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
        log: EngineLog | None = getattr(self._bound, "log", None)
        if log is None:
            if self._before:
                self._before(level, text, self._before_data)
            return
        if level != _CONTINUED:
            self._bound.dropping = level == _DEBUG
        if not getattr(self._bound, "dropping", False):
            log.write(text.decode("utf-8", "replace"))

    @contextmanager
    def to(self, log: EngineLog) -> Iterator[None]:
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
