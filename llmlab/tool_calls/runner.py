"""Run tool calls; a failing tool becomes a step with an error, never an exception in the caller's cell."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmlab.errors import UnknownNameError
from llmlab.tool_calls.options import ToolUse
from llmlab.tool_calls.results import text_of
from llmlab.tool_calls.tool import Tool
from llmlab.types import ToolCall, ToolStep

OnStep = Callable[[int, ToolStep], None]
"""Called with a call's index and its step, when it starts and when it ends."""

ERROR_CHARACTERS = 500
_POLL_S = 0.05


class TimeUpError(BaseException):
    """A tool exceeded its time limit. A BaseException, so that `except Exception` in the tool doesn't catch it."""


@dataclass(frozen=True)
class _Ready:
    """A call that is ready to run: its tool and validated arguments."""

    tool: Tool
    arguments: dict[str, Any]


class PrivateLoop:
    """An event loop on its own thread, started at first use: a notebook's loop is busy while a cell runs."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to completion; Ctrl-C (or any other exception in this thread) cancels it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="llmlab-tools", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                # Poll: on Windows an unlimited wait can't be interrupted.
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    return future.result(_POLL_S * 10)
                if future.done():
                    return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is running and stop the thread."""
        loop, self._loop = self._loop, None
        if loop is None:
            return

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await loop.shutdown_asyncgens()

        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), loop).result(1.0)
        loop.call_soon_threadsafe(loop.stop)


class Runner:
    """Runs the calls of one generation.

    Args:
        use: the tools, the approval function, the time limit.
    """

    def __init__(self, use: ToolUse) -> None:
        self._use = use
        self._loop = PrivateLoop()

    def close(self) -> None:
        """Stop the event loop."""
        self._loop.close()

    def run(self, calls: Sequence[ToolCall], on_step: OnStep) -> list[ToolStep]:
        """Run calls: plain functions one by one in this thread, async functions concurrently.

        Plain functions run in the caller's thread so that Ctrl-C reaches them and thread-bound connections (sqlite3)
        work.

        Args:
            calls: the model's calls.
            on_step: called when each call starts and ends.
        """
        steps, ready = self._ready(calls, on_step)
        waiting = {place: one for place, one in ready.items() if one.tool.is_async}
        for place, one in ready.items():
            if not one.tool.is_async:
                steps[place] = self._plain(calls[place], one)
                on_step(place, steps[place])
        if waiting:
            steps |= self._loop.run(self._together(calls, waiting, on_step))
        return [steps[place] for place in range(len(calls))]

    async def arun(self, calls: Sequence[ToolCall], on_step: OnStep) -> list[ToolStep]:
        """`run` as a coroutine: all calls concurrently, async functions on this event loop, plain ones on threads."""
        steps, ready = self._ready(calls, on_step)
        steps |= await self._together(calls, ready, on_step)
        return [steps[place] for place in range(len(calls))]

    # -- internals -----------------------------------------------------------------------------

    def _ready(self, calls: Sequence[ToolCall], on_step: OnStep) -> tuple[dict[int, ToolStep], dict[int, _Ready]]:
        steps: dict[int, ToolStep] = {}
        ready: dict[int, _Ready] = {}
        for place, call in enumerate(calls):
            step = ToolStep(call)
            found = self._checked(call)
            if isinstance(found, str):
                steps[place] = step = replace(step, error=found)
            else:
                ready[place] = found
            on_step(place, step)
        # All calls are validated and shown before the first prompt.
        for place in list(ready):
            if self._use.approve is not None and not self._approved(calls[place]):
                del ready[place]
                steps[place] = ToolStep(calls[place], error="the user did not allow this call")
                on_step(place, steps[place])
        return steps, ready

    def _checked(self, call: ToolCall) -> _Ready | str:
        if call.problem:
            return f"the call can't be read: {call.problem}"
        try:
            tool = self._use.box.find(call.name)
        except UnknownNameError as error:
            return f"{error.message[0].lower()}{error.message[1:]} {error.hint}"
        try:
            return _Ready(tool, tool.check(call.arguments))
        except ValueError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a type's own validator may raise anything
            return f"the arguments don't fit: {_describe(error)}"

    def _approved(self, call: ToolCall) -> bool:
        assert self._use.approve is not None
        return bool(self._use.approve(call))

    def _plain(self, call: ToolCall, one: _Ready) -> ToolStep:
        started = time.perf_counter()
        try:
            value = in_time(lambda: one.tool.call(one.arguments), self._use.timeout_s)
            if inspect.isawaitable(value):
                # A plain function that returns a coroutine (a partial, a decorator).
                value = self._loop.run(self._awaited(value))
        except (Exception, SystemExit, TimeUpError) as error:  # noqa: BLE001 - anything a tool raises is its result
            return self._failed(call, error, started)
        return _done(call, value, started)

    async def _together(
        self, calls: Sequence[ToolCall], ready: dict[int, _Ready], on_step: OnStep
    ) -> dict[int, ToolStep]:
        async def one(place: int) -> tuple[int, ToolStep]:
            step = await self._async(calls[place], ready[place])
            on_step(place, step)
            return place, step

        return dict(await asyncio.gather(*(one(place) for place in ready)))

    async def _async(self, call: ToolCall, one: _Ready) -> ToolStep:
        started = time.perf_counter()
        try:
            if one.tool.is_async:
                value = await self._awaited(one.tool.call(one.arguments))
            else:
                value = await asyncio.to_thread(in_time, lambda: one.tool.call(one.arguments), self._use.timeout_s)
                if inspect.isawaitable(value):
                    value = await self._awaited(value)
        except (Exception, SystemExit, TimeUpError) as error:  # noqa: BLE001 - as above
            return self._failed(call, error, started)
        return _done(call, value, started)

    async def _awaited(self, work: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._use.timeout_s) as limit:
                return await work
        except TimeoutError:
            if limit.expired():
                raise TimeUpError from None
            raise

    def _failed(self, call: ToolCall, error: BaseException, started: float) -> ToolStep:
        seconds = time.perf_counter() - started
        reason = f"stopped after {self._use.timeout_s:g} s" if isinstance(error, TimeUpError) else _describe(error)
        return ToolStep(call, error=reason, seconds=seconds)


def _describe(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a broken __str__
        text = ""
    return f"{type(error).__name__}{': ' if text else ''}{text}"[:ERROR_CHARACTERS]


def _done(call: ToolCall, value: Any, started: float) -> ToolStep:
    seconds = time.perf_counter() - started
    try:
        return ToolStep(call, text_of(value), seconds=seconds, value=value)
    except Exception as error:  # noqa: BLE001 - a value that can't be converted to text
        reason = f"it returned a {type(value).__name__} that can't be shown: {_describe(error)}"
        return ToolStep(call, error=reason, seconds=seconds, value=value)


def in_time(work: Callable[[], Any], limit_s: float) -> Any:
    """Run a function with a time limit.

    On the main thread (except on Windows) an alarm ends it. Elsewhere it runs on a thread that is abandoned when the
    time is up.

    Raises:
        TimeUpError: it took longer.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        with _alarm(limit_s):
            return work()
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def go() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - passed to the waiting thread
            done.set_exception(error)

    threading.Thread(target=go, name="llmlab-tool", daemon=True).start()
    if not concurrent.futures.wait([done], limit_s).done:
        raise TimeUpError
    return done.result()


@contextlib.contextmanager
def _alarm(limit_s: float) -> Iterator[None]:
    """Raise TimeUpError in the main thread when the time is up; an existing alarm is restored."""
    before, every = signal.getitimer(signal.ITIMER_REAL)
    if before and before <= limit_s:
        # An alarm set by other code fires first, and that code handles it.
        yield
        return
    started = time.monotonic()
    over = False

    def ring(*_: Any) -> None:
        if not over:
            raise TimeUpError

    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        over = True
        left = max(before - (time.monotonic() - started), 0.001) if before else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, every)
