"""Finds and ends the processes that a notebook's kernel starts, by a variable in their environment.

They can't be found by their parent: vLLM's engine cores are in their own sessions, and after the kernel's death their
parent is init. But they inherit the kernel's environment.
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

GRACE_S = 10.0  # time for processes to end by themselves after their kernel
_MARK = "LLMLAB_RUN"


class Marked:
    """The mark of one kernel, and all processes that carry it."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._since = time.time() - 60  # start times are rounded, and clocks can be adjusted

    def environment(self) -> dict[str, str]:
        """The environment for the kernel: this process's, plus the mark."""
        # vLLM's processes use setproctitle, which overwrites the environment without SPT_NOENV.
        return {**os.environ, _MARK: self._id, "SPT_NOENV": "1"}

    def alive(self) -> list[psutil.Process]:
        """The processes that are still running."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.create_time() >= self._since and process.environ().get(_MARK) == self._id:
                    found.append(process)
        return found

    def end(self, grace_s: float | None = None) -> list[str]:
        """Wait for all processes to end, and kill those that don't.

        Args:
            grace_s: seconds to wait before killing; None for `GRACE_S`.

        Returns:
            The killed processes: "pid 17 (python worker.py)".
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
    """Ignore a second Ctrl-C during the cleanup after the first."""
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
        command = "already ended"
    return f"pid {process.pid} ({command[:100]})"
