"""One recorded answer: what the engine pushed, token by token, as JSON data and back."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from llmlab.engines.base import Request
from llmlab.engines.stream import Buffer
from llmlab.types import FinishReason, GuidanceStep, Speculation, TokenLogprob


class Tap:
    """Stands in front of a request's buffer: passes everything on, and keeps it.

    Args:
        request: the request.
        done: called with the answer as JSON data when it has ended; with None if it failed.
    """

    def __init__(self, request: Request, done: Callable[[dict[str, Any] | None], None]) -> None:
        self._buffer = request.buffer
        self._request = request
        self._done = done
        self._events: list[list[Any]] = []
        self._more: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._first: float | None = None
        self._last = self._started
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._buffer, name)

    def _note(self, kind: str, text: str, ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        if text or ids:
            self._last = time.perf_counter()
            self._first = self._first if self._first is not None else self._last
            event: list[Any] = [kind, text, list(ids)]
            self._events.append([*event, [_logprob(one) for one in logprobs]] if logprobs else event)

    def push(
        self,
        text: str,
        token_ids: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
        *,
        index: int = 0,
        cached: int | None = None,
    ) -> None:
        """See `Buffer.push`."""
        with self._lock:
            self._note("text", text, tuple(token_ids), tuple(logprobs))
            if cached is not None:
                self._more["cached"] = cached
        self._buffer.push(text, token_ids, logprobs, index=index, cached=cached)

    def think(
        self,
        text: str,
        token_ids: tuple[int, ...] = (),
        *,
        index: int = 0,
        cached: int | None = None,
        cut: bool = False,
    ) -> None:
        """See `Buffer.think`."""
        with self._lock:
            self._note("thought", text, tuple(token_ids))
        self._buffer.think(text, token_ids, index=index, cached=cached, cut=cut)

    def counted(
        self, tokens: int | None, *, cached: int | None = None, thought: int | None = None, index: int = 0
    ) -> None:
        """See `Buffer.counted`."""
        self._more |= {"tokens": tokens, "cached": cached, "thought_tokens": thought}
        self._buffer.counted(tokens, cached=cached, thought=thought, index=index)

    def prompt_is(self, tokens: int) -> None:
        """See `Buffer.prompt_is`."""
        self._more["prompt_tokens"] = tokens
        self._buffer.prompt_is(tokens)

    def speculated(self, one: Speculation) -> None:
        """See `Buffer.speculated`."""
        self._more["speculation"] = asdict(one)
        self._buffer.speculated(one)

    def finish(self, reason: FinishReason, *, index: int = 0, text: str = "") -> None:
        """See `Buffer.finish`. The answer is kept before its readers see the end."""
        with self._lock:
            if not self._ended and self._buffer.error is None:
                self._ended = True
                try:
                    self._done(self._answer(reason, text))
                except Exception as error:  # noqa: BLE001 - a reader waits for the end
                    with suppress(Warning):
                        message = f"llmlab: an answer wasn't recorded ({type(error).__name__}: {error})."
                        warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._buffer.finish(reason, index=index, text=text)

    def fail(self, error: BaseException) -> None:
        """See `Buffer.fail`."""
        self._done(None)
        self._buffer.fail(error)

    def _answer(self, reason: FinishReason, tail: str) -> dict[str, Any]:
        found: dict[str, Any] = {"said": "".join(one[1] for one in self._events) + tail, "finish": reason}
        if tail:
            found["tail"] = tail
        found["events"] = self._events
        found |= {name: value for name, value in self._more.items() if value is not None}
        trace = self._request.trace
        if trace:
            found |= {"trace": [asdict(step) for step in trace], "retries": trace.retries}
        ttft = self._first - self._started if self._first is not None else None
        found["seconds"] = [
            None if ttft is None else round(ttft, 4),
            round(self._last - self._started, 4),
        ]
        return found


def play(row: Mapping[str, Any], request: Request, gone: Callable[[], bool]) -> None:
    """Push a recorded answer to a request's buffer.

    Args:
        row: the answer.
        request: the request.
        gone: whether the request was cancelled.
    """
    buffer: Buffer = request.buffer
    index = request.index
    cached = row.get("cached")
    if request.trace is not None:
        request.trace[:] = [GuidanceStep(**step) for step in row.get("trace", ())]
        request.trace.retries = row.get("retries", 0)
    for kind, text, ids, *logprobs in row["events"]:
        if gone():
            break
        if kind == "thought":
            buffer.think(text, tuple(ids), index=index, cached=cached)
        else:
            tokens = tuple(_token(one) for one in (logprobs[0] if logprobs else ()))
            buffer.push(text, tuple(ids), tokens, index=index, cached=cached)
        cached = None
    if "tokens" in row:
        buffer.counted(row["tokens"], cached=row.get("cached"), thought=row.get("thought_tokens"), index=index)
    if "prompt_tokens" in row:
        buffer.prompt_is(row["prompt_tokens"])
    if "speculation" in row:
        buffer.speculated(Speculation(**row["speculation"]))
    first, total = row["seconds"]
    buffer.replayed(first, total, index=index)
    buffer.finish(row["finish"], index=index, text=row.get("tail", ""))


def _logprob(one: TokenLogprob) -> list[Any]:
    top = [list(other) for other in one.top]
    return [one.token_id, one.token, one.logprob, top, list(one.bytes)]


def _token(one: list[Any]) -> TokenLogprob:
    token, text, logprob, top, data = one
    return TokenLogprob(token, text, logprob, tuple((i, t, p) for i, t, p in top), data)
