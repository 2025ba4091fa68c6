"""The tool loop as a stream; the tools run in the thread that iterates it, waits on it or takes its result."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace

from llmlab.engines.base import Rendered
from llmlab.engines.stream import Buffer
from llmlab.errors import Interrupted
from llmlab.inference.stream import Stream, wait_all
from llmlab.tool_calls.loop import ToolLoop
from llmlab.tool_calls.runner import Runner
from llmlab.types import Chunk, Completion, ToolStep


class ToolStream(Stream):
    """A stream of the model's output over all steps; the calls run between the steps.

    The loop only advances in a thread that iterates, waits, or calls `result()`; that thread runs the tools. Otherwise
    it works like any `Stream`.

    Args:
        loop: the prompt's loop, with its first request prepared.
    """

    def __init__(self, loop: ToolLoop) -> None:
        # No reference to self: a dropped stream must be collected at once, and its request with it.
        super().__init__(lambda: (loop.current.start(), loop.current.cancel), lambda _: loop.result())
        self._loop = loop
        self._runner = Runner(loop.use)
        self._result: Completion | None = None
        self._chunks: list[Chunk] = []
        self._read = 0
        self._running: list[ToolStep] = []
        self._listeners: list[Callable[[], None]] = []
        weakref.finalize(self, self._runner.close).atexit = False

    # -- state ---------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the first request was sent to the engine."""
        return bool(self._loop.parts) or self._loop.current.started

    @property
    def done(self) -> bool:
        """Whether the loop has ended."""
        return self._result is not None

    @property
    def text(self) -> str:
        """The text of the current step so far; at the end, the answer."""
        return self._result.text if self._result is not None else self._loop.current.text

    @property
    def thought(self) -> tuple[str, int]:
        """The thought of the current step so far, and its number of tokens."""
        buffer = self._loop.current.start()
        return buffer.reasoning(), buffer.reasoning_tokens()

    @property
    def steps(self) -> tuple[ToolStep, ...]:
        """The calls so far, including those that are running."""
        return (*self._loop.steps, *self._running)

    @property
    def current(self) -> Stream:
        """The request of the current step."""
        return self._loop.current

    def reading(self) -> Rendered:
        """What the model reads in the current step."""
        return self._loop.current.reading()

    def listen(self, callback: Callable[[], None]) -> None:
        """Register a callback for the start and end of each call, before any approval prompt."""
        self._listeners.append(callback)

    # -- control -------------------------------------------------------------------------------

    def start(self) -> Buffer:
        """Send the current request to the engine if that wasn't done yet; returns its buffer."""
        return self._loop.current.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for the current step; if it has ended, run its calls and start the next one.

        Returns:
            Whether the loop has ended. With `timeout=None` it waits until then.
        """
        while self._result is None:
            if not self._loop.current.wait(timeout):
                return False
            self.settle()
            if self._result is None:
                self._loop.current.start()
            if timeout is not None:
                break
        return self._result is not None

    def result(self) -> Completion:
        """Run the loop to its end.

        Returns:
            The answer, with the transcript of the calls in `steps`.

        Raises:
            GenerationError: the engine failed.
            Interrupted: Ctrl-C, in the engine or in a tool; `.partial` is the completion so far.
        """
        try:
            self.wait()
        except KeyboardInterrupt:
            raise self._interrupted() from None
        assert self._result is not None
        return self._result

    def partial(self) -> Completion:
        """The completion so far."""
        if self._result is not None:
            return self._result
        current = self._loop.current
        if not self._loop.taken and (current.started or not self._loop.parts):
            return self._loop.result(current.partial(), reason="interrupted")
        return self._loop.result(reason="interrupted")

    def cancel(self, wait_s: float = 5.0) -> None:
        """End the loop with `finish_reason` "interrupted" and keep the output so far. A running tool finishes first."""
        if self._result is None:
            if self._loop.current.started:
                self._loop.current.cancel(wait_s)
            if self._running:
                self._loop.stopped(
                    [replace(step, error="interrupted") if step.running else step for step in self._running]
                )
                self._running = []
            self._result = self.partial()
            self._runner.close()

    def __iter__(self) -> Iterator[Chunk]:
        position = 0
        while True:
            while position < len(self._chunks):
                position += 1
                yield self._chunks[position - 1]
            if self._result is not None:
                return
            try:
                more = self._loop.current.start().wait(self._read)
                if more and not self._pull():
                    self.settle()
            except KeyboardInterrupt:
                raise self._interrupted() from None

    async def aresult(self) -> Completion:
        """`result()`, awaitable: async tools run on this event loop, plain functions on threads."""
        async for _ in self:
            pass
        assert self._result is not None
        return self._result

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for chunk in list(self._chunks):
            yield chunk
        try:
            while self._result is None:
                place = 0
                async for chunk in self._loop.current:
                    place += 1
                    if place > self._read:
                        self._read = place
                        self._chunks.append(chunk)
                        yield chunk
                self._read = 0
                calls = self._loop.take(self._loop.current.result())
                self._running = [ToolStep(call) for call in calls]
                if not calls or not self._loop.ran(await self._runner.arun(calls, self._on_step)):
                    self._end()
                self._running = []
        except BaseException:
            self.cancel(wait_s=0)
            raise

    # -- internals -----------------------------------------------------------------------------

    def _pull(self) -> bool:
        """Collect new chunks; returns whether there were any."""
        fresh = self._loop.current.start().read(self._read)
        self._read += len(fresh)
        self._chunks += fresh
        return bool(fresh)

    def settle(self) -> None:
        """Process the finished step, run its calls, and prepare the next one."""
        completion = self._loop.current.result()
        while self._pull():
            pass
        self._read = 0
        calls = self._loop.take(completion)
        if calls:
            self._running = [ToolStep(call) for call in calls]
            steps = self._runner.run(calls, self._on_step)
            more = self._loop.ran(steps)
            self._running = []
            if more:
                return
        self._end()

    def _end(self) -> None:
        self._result = self._loop.result()
        self._running = []
        self._runner.close()

    def _on_step(self, place: int, step: ToolStep) -> None:
        if place >= len(self._running):
            self._running += [step] * (place + 1 - len(self._running))
        self._running[place] = step
        for callback in self._listeners:
            callback()

    def _interrupted(self) -> Interrupted:
        self.cancel()
        return Interrupted(self.partial())


def run_all(streams: Sequence[ToolStream], *, progress_after_s: float) -> list[Completion]:
    """Run several loops in one batch: the requests of each step together, the tools in between.

    Raises:
        GenerationError: one failed; the others were cancelled.
        Interrupted: Ctrl-C; all were cancelled, and `.partial` is the list of completions so far.
    """
    left = list(streams)
    try:
        while left:
            wait_all([stream.current for stream in left], progress_after_s=progress_after_s)
            for stream in left:
                stream.settle()
            left = [stream for stream in left if not stream.done]
    except KeyboardInterrupt:
        for stream in streams:
            stream.cancel(wait_s=0)
        raise Interrupted([stream.partial() for stream in streams if stream.started]) from None
    except BaseException:
        for stream in streams:
            stream.cancel(wait_s=0)
        raise
    return [stream.result() for stream in streams]
