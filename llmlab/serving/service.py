"""What the routes share: the Lab, starting and following a generation, and recording it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import JSONResponse, Response

from llmlab.errors import UnknownNameError
from llmlab.serving.failures import LOADING, STOPPED, ClientGoneError, HttpError, error_body, http_error
from llmlab.serving.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.session import Lab
    from llmlab.types import Chunk, Completion

BODY_TIMEOUT_S = 30.0
"""How long a client may take to send its request."""
REQUEST_TIMEOUT_S = 3600.0
"""How long a request may run."""
PREPARING_THREADS = 4
PAUSE_S = 0.01
"""A stream's chunks are sent at most this often: each wake-up takes the interpreter from the decoding thread."""

Result = TypeVar("Result")


class Service:
    """The models behind the routes.

    Args:
        lab: the Lab whose models are served.

    Attributes:
        loading: models are missing that are being loaded.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.metrics = Metrics(lab)
        self.loading = False
        self._running: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._closed = False
        self._lock = threading.Lock()
        # Rendering, tokenizing and compiling a constraint take milliseconds to seconds: off the event loop.
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, "llmlab-serve-prepare")

    # -- models ----------------------------------------------------------------------------------

    def find(self, wanted: Any) -> tuple[Model, dict[str, Any]]:
        """The model that a request names, and the adapter in its name as an option.

        Args:
            wanted: `name`, `name:adapter` or `name:latest` (Ollama); None or "": the current model.

        Raises:
            HttpError: no such model.
        """
        if wanted is not None and not isinstance(wanted, str):
            raise HttpError(400, f"model must be text, got {wanted!r:.60}.", "invalid_value", "model")
        name, _, adapter = (wanted or "").partition(":")
        try:
            model = self.lab.get(name or None)
        except UnknownNameError as error:
            if self.loading:
                raise HttpError(503, LOADING, "loading") from error
            known = ", ".join(self.lab.models)
            text = f"Unknown model {name!r:.80}. Known: {known}." if known else "No model is loaded."
            raise HttpError(404, text, "model_not_found", "model") from error
        if adapter and not (adapter == "latest" and adapter not in model.adapters):
            first = adapter.split("+", maxsplit=1)[0].split(":", maxsplit=1)[0]
            if first not in (*model.adapters, "none"):
                known = ", ".join([name, *(f"{name}:{one}" for one in model.adapters)])
                raise HttpError(404, f"Unknown model {wanted!r:.80}. Known: {known}.", "model_not_found", "model")
            return model, {"adapter": adapter}
        return model, {}

    # -- generations -----------------------------------------------------------------------------

    async def work(self, call: Callable[[], Result]) -> Result:
        """Run a function on a thread."""
        if self._closed:  # the threads have ended; what is left is short: recording the requests that were cancelled
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def start(self, make: Callable[[], Stream]) -> Stream:
        """Prepare a request and submit it; it is cancelled when the server stops."""

        def begin() -> Stream:
            stream = make()
            stream.start()
            with self._lock:
                if not self._closed:
                    self._running.add(stream)
                    return stream
            stream.cancel(wait_s=0)  # the server stopped meanwhile, and nothing waits for it
            raise HttpError(503, STOPPED, "interrupted")

        return await self.work(begin)

    async def result(self, request: Request, stream: Stream, route: str) -> Completion:
        """Wait for the end of a request; if its client goes away or its time is up, it is cancelled.

        Raises:
            ClientGoneError: the client closed the connection.
            HttpError: it took too long, or was interrupted.
        """
        ended = asyncio.create_task(_ended(stream))
        gone = asyncio.create_task(until_gone(request.receive))
        try:
            await asyncio.wait({ended, gone}, timeout=REQUEST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self.drop(stream, route)
                if gone.done():
                    raise ClientGoneError
                raise HttpError(504, f"It took longer than {REQUEST_TIMEOUT_S:.0f} s.", "timeout")
        finally:
            ended.cancel()
            gone.cancel()
        return self.finish(stream, route)

    def finish(self, stream: Stream, route: str) -> Completion:
        """The completion of a request that has ended, recorded.

        Raises:
            HttpError: it was interrupted.
            GenerationError: the engine failed.
        """
        completion = stream.result()
        self.lab.runlog.add(completion, source="serve")
        self.metrics.add(completion, route)
        if any(choice.finish_reason == "interrupted" for choice in completion.choices):
            raise HttpError(503, STOPPED, "interrupted")
        return completion

    def drop(self, stream: Stream, route: str) -> None:
        """Cancel a request whose client has gone, and record what it wrote."""
        if stream.started and not stream.done:
            stream.cancel(wait_s=0)
            completion = stream.partial()
            self.lab.runlog.add(completion, source="serve")
            self.metrics.add(completion, route)

    def close(self) -> None:
        """Cancel the requests that are running, and start no others."""
        with self._lock:
            self._closed = True
            running = [stream for stream in self._running if not stream.done]
        for stream in running:
            stream.cancel(wait_s=0)
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _ended(stream: Stream) -> None:
    """Wait until a request has ended, without waking up for each token."""
    buffer, loop, ended = stream.start(), asyncio.get_running_loop(), asyncio.Event()

    def changed() -> None:
        if buffer.done:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(ended.set)

    stop = buffer.listen(changed)
    try:
        if not buffer.done:
            await ended.wait()
    finally:
        stop()


async def follow(stream: Stream) -> AsyncIterator[list[Chunk]]:
    """The chunks of a request as they arrive: several at a time if they arrive faster than every `PAUSE_S`."""
    buffer, loop, changed = stream.start(), asyncio.get_running_loop(), asyncio.Event()
    waiting = False  # a wake-up writes to a pipe: one per read is enough

    def wake() -> None:
        nonlocal waiting
        if waiting or buffer.done:
            waiting = False
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

    stop = buffer.listen(wake)
    position, due = 0, 0.0
    try:
        while True:
            changed.clear()
            if buffer.count == position:
                waiting = True
                if buffer.count == position and not buffer.done:
                    await changed.wait()
                waiting = False
            while (pause := due - loop.time()) > 0 and not buffer.done:
                changed.clear()
                timer = loop.call_later(pause, changed.set)
                if not buffer.done:
                    await changed.wait()
                timer.cancel()
            fresh = buffer.read(position)
            if fresh:
                position += len(fresh)
                due = (loop.time() // PAUSE_S + 1) * PAUSE_S  # the same moment for all streams
                yield fresh
            elif buffer.done and buffer.count == position:
                return
    finally:
        stop()


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed its connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_json(request: Request) -> dict[str, Any]:
    """The body of a request, which must be a JSON object.

    Raises:
        HttpError: it isn't, or it doesn't arrive.
        ClientGoneError: the client closed the connection.
    """
    from starlette.requests import ClientDisconnect

    try:
        body = await asyncio.wait_for(request.body(), BODY_TIMEOUT_S)
    except TimeoutError:
        raise HttpError(408, f"The request's body didn't arrive within {BODY_TIMEOUT_S:.0f} s.", "timeout") from None
    except ClientDisconnect:
        raise ClientGoneError from None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"The body isn't JSON: {error!s:.120}", "invalid_json") from None
    if not isinstance(value, dict):
        raise HttpError(400, f"The body must be a JSON object, got {type(value).__name__}.", "invalid_json")
    return value


# `json.dumps` makes an encoder per call.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Any) -> bytes:
    """Compact JSON; a lone surrogate, which JSON text may hold, is escaped."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def event(value: Any, name: str = "") -> bytes:
    """A server-sent event."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + to_json(value) + b"\n\n"


class Json(JSONResponse):
    """A JSON response."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return to_json(content)


class Streamed(Response):
    """A response whose body is generated. When the client goes away, the generator and its request end at once.

    Args:
        service: where the request was started.
        stream: the request.
        pieces: the body; it records the end itself (`Service.finish`).
        route: the route's path.
        failed: the last piece after an error.
        media_type: of the body.
    """

    def __init__(
        self,
        service: Service,
        stream: Stream,
        pieces: AsyncIterator[bytes],
        *,
        route: str,
        failed: Callable[[Mapping[str, Any]], bytes] = event,
        media_type: str = "text/event-stream",
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._service = service
        self._stream = stream
        self._pieces = pieces
        self._route = route
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait({sending, gone}, timeout=REQUEST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            self._service.drop(self._stream, self._route)

    async def _send(self, send: Send) -> None:
        try:
            async for piece in self._pieces:
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:  # noqa: BLE001 - the status was sent: the error is the last piece
            body = self._failed(error_body(self._route, http_error(error)))
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
