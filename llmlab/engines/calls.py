"""Work that must run on an engine's own thread, asked for from another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Call:
    """A piece of work, put into a loop's mail; `result` waits until the loop has run it.

    Args:
        work: what to run; its exception is the caller's.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._future: Future[Any] = Future()

    def run(self) -> None:
        """Run it, on the loop's thread."""
        try:
            self._future.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that asked
            self._future.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Nobody will run it."""
        self._future.set_exception(error)

    def result(self) -> Any:
        """Wait for it; what it returned."""
        return self._future.result()
