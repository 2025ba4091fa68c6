"""Calls from other threads that must run on an engine's own thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Call:
    """A function in a loop's inbox; `result` waits until the loop has run it.

    Args:
        work: what to run; `result` raises its exception.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._future: Future[Any] = Future()

    def run(self) -> None:
        """Run it, on the loop's thread."""
        try:
            self._future.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - raised in the calling thread
            self._future.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Fail it without running it."""
        self._future.set_exception(error)

    def result(self) -> Any:
        """Wait for it and return its result."""
        return self._future.result()
