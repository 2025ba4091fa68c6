"""Isolates the process from a vLLM load: its output goes to the engine's log, and what it sets is restored.

Only the loading thread is affected; the user's own output, warnings and log records pass through.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TextIO

from llmlab.engines.base import EngineLog

THREAD_NAME = "llmlab-vllm"


class Writes(Protocol):
    """A log, or whatever else takes text."""

    def write(self, text: str, /) -> object:
        """Append text."""


class LogTap(logging.Handler):
    """Writes one loading or decoding thread's records to the engine's log.

    Args:
        log: receives the lines.
        thread: the engine's thread; records of other engines' threads are left to their own taps.
        seen: called with the name of each record's logger (to detect the phases of a load).
    """

    def __init__(self, log: EngineLog, thread: threading.Thread, seen: Callable[[str], None] | None = None) -> None:
        super().__init__(logging.INFO)
        self._log = log
        self._thread = thread
        self._seen = seen
        self.setFormatter(logging.Formatter("%(levelname)s [%(name)s] %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of this engine's thread, or of a helper thread that no engine claims."""
        if record.thread != self._thread.ident and (record.threadName or "").startswith(THREAD_NAME):
            return
        if self._seen is not None:
            self._seen(record.name)
        try:
            self._log.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - a logging handler must not raise
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing; the default prints to the user's stderr."""


class TapSwitch:
    """Sends the `vllm` logger to the taps of the loaded engines, and restores it after the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taps: list[LogTap] = []
        self._before: tuple[list[logging.Handler], int, bool] | None = None

    def add(self, tap: LogTap) -> None:
        """Attach a tap to the logger; the first one replaces the logger's handlers."""
        logger = logging.getLogger("vllm")
        with self._lock:
            if self._before is None:
                self._before = (logger.handlers[:], logger.level, logger.propagate)
                logger.handlers.clear()
                logger.setLevel(logging.INFO)
                logger.propagate = False
            self._taps.append(tap)
            logger.addHandler(tap)

    def remove(self, tap: LogTap) -> None:
        """Detach a tap; the last one restores the logger."""
        logger = logging.getLogger("vllm")
        with self._lock:
            if tap not in self._taps:
                return
            self._taps.remove(tap)
            logger.removeHandler(tap)
            if not self._taps and self._before is not None:
                logger.handlers[:], level, logger.propagate = self._before
                logger.setLevel(level)
                self._before = None


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore all that changed at exit (vLLM sets a dozen, including LD_PRELOAD)."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in set(before) | set(os.environ):
            if name not in before:
                os.environ.pop(name, None)
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]


@contextlib.contextmanager
def python_noise(log: Writes) -> Iterator[None]:
    """Redirect this thread's warnings and its records for handlers other than the taps to the log."""
    me = threading.get_ident()
    show = warnings.showwarning

    def show_or_log(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if threading.get_ident() == me:
            log.write(warnings.formatwarning(message, category, filename, lineno, line))
        else:
            show(message, category, filename, lineno, file, line)

    def divert(record: logging.LogRecord) -> bool:
        if record.thread != me:
            return True
        log.write(f"{record.levelname} [{record.name}] {record.getMessage()}\n")
        return False

    warnings.showwarning = show_or_log
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(divert)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(divert)
        if warnings.showwarning is show_or_log:
            warnings.showwarning = show


def _handlers() -> list[logging.Handler]:
    """All current handlers except taps: the root logger's, the last resort, and those that libraries added."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    found = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    if logging.lastResort is not None:
        found.append(logging.lastResort)
    return [handler for handler in dict.fromkeys(found) if not isinstance(handler, LogTap)]


@contextlib.contextmanager
def no_tqdm_monitor() -> Iterator[None]:
    """Keep tqdm from starting its monitor thread, which it never stops and starts even for disabled bars."""
    import tqdm

    before = tqdm.tqdm.monitor_interval
    tqdm.tqdm.monitor_interval = 0
    try:
        yield
    finally:
        tqdm.tqdm.monitor_interval = before


@contextlib.contextmanager
def random_state() -> Iterator[None]:
    """Restore Python's random state: imports draw from it (transformers imports scikit-learn, which imports rich)."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def unreported(kind: type[BaseException]) -> Iterator[None]:
    """Print nothing of exceptions of this class in callbacks, which can't raise them ("Exception ignored in ...")."""
    before = sys.unraisablehook

    def report(found: sys.UnraisableHookArgs) -> None:
        if not issubclass(found.exc_type, kind):
            before(found)

    sys.unraisablehook = report
    try:
        yield
    finally:
        if sys.unraisablehook is report:
            sys.unraisablehook = before


@contextlib.contextmanager
def process_state() -> Iterator[None]:
    """Restore process-wide state that a load sets: random states, matmul precision, torch.distributed's excepthook."""
    import numpy as np

    torch: Any = sys.modules["torch"]
    python, numpy, torches = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    precision = torch.get_float32_matmul_precision()
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.random.set_rng_state(torches)
        torch.set_float32_matmul_precision(precision)
