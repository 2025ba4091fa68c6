"""Closes connections whose request doesn't arrive: uvicorn only limits the time between two requests."""

from __future__ import annotations

import time
import weakref
from typing import Any

import uvicorn

HEAD_TIMEOUT_S = 30.0
"""How long a client may take to send a request's headers."""
_TICKS = 10  # a second: uvicorn ticks ten times in one


class HttpServer(uvicorn.Server):
    """uvicorn's server, which any client could otherwise keep out of file descriptors, without a key."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._waiting: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if counter % _TICKS == 0:
            self._close_silent(time.monotonic())
        return await super().on_tick(counter)

    def _close_silent(self, now: float) -> None:
        for connection in tuple(self.server_state.connections):
            if not _awaited(connection):
                self._waiting.pop(connection, None)
            elif now - self._waiting.setdefault(connection, now) >= HEAD_TIMEOUT_S:
                connection.transport.close()


def _awaited(connection: Any) -> bool:
    """Whether a connection has no running request, nor uvicorn's own timer between two requests."""
    cycle = getattr(connection, "cycle", None)
    idle = cycle is None or cycle.response_complete
    return idle and getattr(connection, "timeout_keep_alive_task", None) is None
