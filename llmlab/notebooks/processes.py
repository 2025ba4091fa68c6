"""The processes that a notebook's kernel starts: found by a mark in their environment, and ended.

A kernel's children can't be told by their parent: vLLM's engine cores lead sessions of their own, and once the kernel
is dead they belong to init. Each of them inherits its environment, though.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator

import psutil

GRACE_S = 10.0  # what processes get to end by themselves once their kernel has ended
_MARK = "LLMLAB_RUN"


class Marked:
    """A mark for one kernel, and all processes that bear it."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._since = time.time() - 60  # a process's start is rounded, and clocks are set

    def environment(self) -> dict[str, str]:
        """The environment for the kernel: that of this process, and the mark."""
        # vLLM's processes name themselves with setproctitle, which overwrites the environment unless told not to.
        return {**os.environ, _MARK: self._id, "SPT_NOENV": "1"}

    def alive(self) -> list[psutil.Process]:
        """The processes that run now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.create_time() >= self._since and process.environ().get(_MARK) == self._id:
                    found.append(process)
        return found

    def end(self, grace_s: float | None = None) -> list[str]:
        """Wait for all to end, and kill those that don't.

        Args:
            grace_s: how long to wait before; None for `GRACE_S`.

        Returns:
            What had to be killed: "pid 17 (python worker.py)".
        """
        deadline = time.monotonic() + (GRACE_S if grace_s is None else grace_s)
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.1)
        named = [_named(process) for process in left]
        for polite in (True, False, False):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.terminate() if polite else process.kill()
            psutil.wait_procs(left, timeout=3)
            left = self.alive()
            if not left:
                break
        return named


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Let a second Ctrl-C not interrupt the tidying up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _named(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "ended meanwhile"
    return f"pid {process.pid} ({command[:100]})"
