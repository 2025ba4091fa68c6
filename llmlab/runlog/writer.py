"""Writes the run log on its own thread, so that generation never waits for the disk.

The thread imports nothing: interrupting an import in the main thread while another thread holds the interpreter's
import lock can leave that lock held forever (3 of 81 interrupts in a kernel's first cell did, when this thread
imported sqlite-utils and pandas).
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - can't be imported during interpreter shutdown
import contextlib
import queue
import sqlite3
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from llmlab.runlog.schema import connect, writing

Job = Callable[[sqlite3.Connection], None]

# Maximum queued jobs; more are dropped to limit memory use.
MOST_WAITING = 2000


class Writer:
    """A queue of jobs and the thread that runs them, each in its own transaction. Warns once about failures.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: queue.Queue[Job | threading.Event | None] = queue.Queue(MOST_WAITING)
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="llmlab-run-log", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running. False in a fork, which has no threads."""
        return self._thread.is_alive()

    def put(self, job: Job) -> None:
        """Queue a job. Returns immediately; raises nothing."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._warn("the disk is too slow")

    def flush(self, timeout: float) -> bool:
        """Wait until all queued jobs are done. Returns whether they are."""
        reached = threading.Event()
        if not self.alive:  # stopped, or in a fork
            return False
        try:
            self._jobs.put(reached, timeout=timeout)
        except queue.Full:
            return False
        return reached.wait(timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """Finish the queued jobs and end the thread."""
        try:
            self._jobs.put(None, timeout=timeout)
        except queue.Full:
            return
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        while (job := self._jobs.get()) is not None:
            if isinstance(job, threading.Event):
                job.set()
                continue
            try:
                db = db if db is not None else connect(self.path)
                with writing(db):
                    job(db)
            except Exception as error:  # noqa: BLE001 - a failing log must not break anything else
                self._warn(str(error) or type(error).__name__)
                if isinstance(error, OSError | sqlite3.Error) and db is not None:
                    db.close()  # reopen a file that was moved or replaced
                    db = None
        if db is not None:
            db.close()

    def _warn(self, why: str) -> None:
        if self._warned:
            return
        self._warned = True
        with contextlib.suppress(Warning):  # even if warnings are errors, a failing log must not break anything else
            warnings.warn(
                f"llmlab: can't write the run log {self.path} ({why}). Generation continues without it; this "
                "warning is shown once. LLMLAB_RUN_LOG=off turns the log off.",
                RuntimeWarning,
                stacklevel=2,
            )
