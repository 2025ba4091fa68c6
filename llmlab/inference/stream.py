"""The public stream of chunks: lazy, buffered, replayable, sync and async."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from llmlab._hooks import hooks
from llmlab.engines.base import Rendered
from llmlab.engines.stream import Buffer
from llmlab.errors import Interrupted, UnloadedError
from llmlab.types import Chunk, Completion

# How long to wait for the engine to acknowledge a cancel, which takes effect at its next step.
CANCEL_WAIT_S = 5.0


def check_process(process: int, name: str) -> None:
    """Check that this process is the one that loaded the model.

    Threads don't survive `os.fork`, including the engine's: a request in the child would wait forever.

    Raises:
        UnloadedError: this process is a fork of it.
    """
    if os.getpid() != process:
        raise UnloadedError(
            f"{name} was loaded by process {process}, and this is process {os.getpid()}, a fork of it: the engine's "
            "thread runs only in the first.",
            "Use the model in that process, load it in this one, or start processes with "
            "multiprocessing.get_context('spawn').",
        )


class Stream:
    """Chunks of a completion as they are generated. Iterate it (again to replay it), or call `result()`.

    The request starts at the first use. It is cancelled by `cancel()`, by garbage collection of the stream,
    or by Ctrl-C, which raises `Interrupted` with the partial completion.

    Example:
        >>> stream = model.stream("What is the capital of France?", temperature=0)
        >>> for chunk in stream:
        ...     print(chunk.text, end="")
        The capital of France is Paris.
        >>> stream.result().finish_reason
        'stop'
    """

    def __init__(
        self,
        start: Callable[[], tuple[Buffer, Callable[[], None]]],
        complete: Callable[[Buffer], Completion],
        reading: Callable[[], Rendered] | None = None,
    ) -> None:
        self._start = start
        self._reading = reading
        self._complete = complete
        self._started: tuple[Buffer, Callable[[], None]] | None = None
        self._process = 0

    def start(self) -> Buffer:
        """Submit the request to the engine, unless it has been. Returns the buffer of its output.

        Example:
            >>> stream = model.stream("Hello!")
            >>> buffer = stream.start()
            >>> stream.started
            True
        """
        if self._started is None:
            self._process = os.getpid()
            self._started = self._start()
            # The engine references the buffer, not the stream, so an unused stream is collected, which cancels it.
            weakref.finalize(self, self._started[1]).atexit = False
        elif not self._started[0].done:
            check_process(self._process, "the model")
        return self._started[0]

    def reading(self) -> Rendered:
        """What the model reads for this request, without starting it. A server is asked, if it shows it.

        Example:
            >>> model.stream("hi").reading().text
            '<|user|>hi<|end|><|assistant|>'
        """
        return self._reading() if self._reading is not None else Rendered(None, None, "it isn't one request")

    def cancel(self, wait_s: float = CANCEL_WAIT_S) -> None:
        """End the request. The output so far stays readable, with `finish_reason` "interrupted".

        Args:
            wait_s: seconds to wait for the engine to acknowledge.

        Example:
            >>> stream = model.stream("Tell me a story.", max_tokens=500, ignore_eos=True)
            >>> stream.cancel()
            >>> stream.partial().finish_reason
            'interrupted'
        """
        buffer = self.start()
        if self._started is not None and not buffer.done:
            self._started[1]()
            buffer.wait_done(wait_s)

    @property
    def started(self) -> bool:
        """Whether the request was submitted to the engine."""
        return self._started is not None

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._started is not None and self._started[0].done

    @property
    def text(self) -> str:
        """The first choice's text so far (starts the request)."""
        return self.start().text()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end. Doesn't raise the request's errors.

        Args:
            timeout: seconds to wait; None: no limit.

        Returns:
            Whether the request has ended.

        Example:
            >>> model.stream("Hello!", max_tokens=4).wait(timeout=60)
            True
        """
        return self.start().wait_done(timeout)

    def partial(self) -> Completion:
        """The completion so far; a choice that is still running counts as interrupted.

        Example:
            >>> stream = model.stream("Hello!", max_tokens=4)
            >>> stream.partial().text  # doctest: +VARIES
            'Hello'
        """
        return self._complete(self.start())

    def result(self) -> Completion:
        """Wait for the end.

        Returns:
            The full completion.

        Raises:
            GenerationError: the engine failed.
            Interrupted: Ctrl-C; the request was cancelled, and `.partial` is the completion so far.

        Example:
            >>> model.stream("What is the capital of France?", temperature=0).result().text
            'The capital of France is Paris.'
        """
        buffer = self.start()
        try:
            buffer.wait_done()
        except KeyboardInterrupt:
            raise self._interrupted() from None
        return self._finished(buffer)

    def __iter__(self) -> Iterator[Chunk]:
        buffer = self.start()
        position = 0
        while True:
            try:
                buffer.wait(position)
            except KeyboardInterrupt:
                raise self._interrupted() from None
            for chunk in buffer.read(position):
                position += 1
                yield chunk
            if buffer.done and not buffer.read(position):
                self._finished(buffer)
                return

    async def aresult(self) -> Completion:
        """Async version of `result`. Cancelling the task cancels the request.

        Returns:
            The full completion.

        Raises:
            GenerationError: the engine failed.

        Example:
            >>> import asyncio
            >>> async def answer():
            ...     return await model.stream("What is the capital of France?", temperature=0).aresult()
            >>> asyncio.run(answer()).text
            'The capital of France is Paris.'
        """
        async for _ in self:
            pass
        return self._finished(self.start())

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        buffer = self.start()
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            # A late step may report after the loop was closed.
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        stop_listening = buffer.listen(wake)
        position = 0
        try:
            while True:
                changed.clear()
                for chunk in buffer.read(position):
                    position += 1
                    yield chunk
                if buffer.done and not buffer.read(position):
                    break
                if not buffer.read(position):
                    await changed.wait()
            self._finished(buffer)
        except asyncio.CancelledError:
            if self._started is not None:
                self._started[1]()
            raise
        finally:
            stop_listening()

    def _finished(self, buffer: Buffer) -> Completion:
        if buffer.error is not None:
            raise buffer.error
        return self._complete(buffer)

    def _interrupted(self) -> Interrupted:
        self.cancel()
        return Interrupted(self.partial())


def wait_all(streams: Sequence[Stream], *, progress_after_s: float) -> list[Completion]:
    """Run streams as one batch and wait for all of them, with a progress bar after `progress_after_s` seconds.

    Raises:
        GenerationError: one failed; the others were cancelled.
        Interrupted: Ctrl-C; all were cancelled, and `.partial` is the list of completions so far.
    """
    try:
        for stream in streams:
            stream.start()
        results = []
        for stream in hooks.counted(streams, "generating", "prompt", after_s=progress_after_s):
            results.append(stream.result())  # noqa: PERF401 - a comprehension would lose the results before a failure
        return results
    except KeyboardInterrupt:
        _cancel_all(streams)
        raise Interrupted([stream.partial() for stream in streams if stream.started]) from None
    except BaseException:
        _cancel_all(streams)
        raise


def _cancel_all(streams: Sequence[Stream]) -> None:
    running = [stream for stream in streams if stream.started and not stream.done]
    for stream in running:
        stream.cancel(wait_s=0)
    for stream in running:
        stream.wait(CANCEL_WAIT_S)
