"""Routes llama.cpp's messages to the log of the engine that is running on the calling thread.

llama.cpp has one log callback per process, so there is one router, created at the first load.
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


# Logged for every input of every layer at each new graph: hundreds of lines of no use to a user.
_NOISE = b"llama_graph_n_input_tensors"


class Writer(Protocol):
    """A destination of messages: an engine's log, or a wrapper around it."""

    def write(self, text: str) -> None:
        """Write text; lines may arrive in pieces."""


class KVCacheLogParser:
    """Forwards messages to a log and adds up the sizes of the KV cache (or recurrent state) buffers in them.

    llama.cpp has no function that returns these sizes.
    """

    def __init__(self, log: EngineLog) -> None:
        self._log = log
        self.kv_bytes = 0
        self.in_ram: list[int] = []

    def write(self, text: str) -> None:
        """Write text; the line with a buffer's size arrives in one piece."""
        found = re.search(r"(?:KV|RS) buffer size\s*=\s*([\d.]+) MiB", text)
        if found:
            size = int(float(found[1]) * 2**20)
            self.kv_bytes += size
            if re.search(r"\bCPU\s+KV buffer", text):
                self.in_ram.append(size)
        self._log.write(text)


class LogRouter:
    """The permanent C callback. Messages of threads that no engine has bound go to the previous callback."""

    def __init__(self) -> None:
        import llama_cpp

        self._bound = threading.local()
        self._before: Any = llama_cpp.llama_log_callback()
        self._before_data = ctypes.c_void_p()
        # The attribute keeps the C callback alive: llama.cpp may call it at any time.
        self.callback = llama_cpp.llama_log_callback(self._write)
        self._install()

    def _install(self) -> None:
        """Become llama.cpp's callback, again if other code has set its own meanwhile."""
        import llama_cpp

        # The previous callback serves code in this process that calls llama_cpp directly.
        found, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
        llama_cpp.llama_log_get(ctypes.byref(found), ctypes.byref(data))
        if _address(found) != _address(self.callback):
            self._before, self._before_data = found, data
            llama_cpp.llama_log_set(self.callback, None)

    def _write(self, level: int, text: bytes | None, _data: Any) -> None:
        # No exception may leave a C callback, and no module may be relied on during interpreter shutdown.
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
        """Send llama.cpp's messages on this thread to `log` within the block."""
        before = getattr(self._bound, "log", None)
        self._bound.log = log
        self._install()
        try:
            yield
        finally:
            self._bound.log = before


def _address(callback: Any) -> int | None:
    return ctypes.cast(callback, ctypes.c_void_p).value


@functools.cache
def router() -> LogRouter:
    """The process-wide router; the first call imports llama_cpp and installs it."""
    return LogRouter()
