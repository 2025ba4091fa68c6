"""Forwards an engine's stream to a front end: batched pieces while it runs, the completion at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmlab.errors import Interrupted, UnloadedError
from llmlab.types import Completion

if TYPE_CHECKING:
    from llmlab.engines.stream import Buffer
    from llmlab.inference.stream import Stream

# 25 messages per second look continuous, and cost the engine's loop and the page little.
SEND_EVERY_S = 0.04


class Answering:
    """A running answer. `result()` returns the completion, or raises the error.

    Args:
        stream: the stream to read, on this object's thread.
        piece: called with (characters before it, new text, tokens so far), about 25 times per second.
        thought: the same for the model's thought, which comes before the text.
        ended: called once, with (completion or None, error or None), before the result becomes available.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        piece: Callable[[int, str, int], None],
        ended: Callable[[Completion | None, BaseException | None], None],
        thought: Callable[[int, str, int], None] | None = None,
    ) -> None:
        self._stream = stream
        self._piece = piece
        self._on_thought = thought
        self._ended = ended
        self._finished = threading.Event()
        self._completion: Completion | None = None
        self._error: BaseException | None = None
        self.text = ""
        self.thought = ""
        self.tokens = 0
        # Submit here, so that invalid arguments raise in the caller.
        stream.start()
        self._thread = threading.Thread(target=self._run, name="llmlab-widget-answer", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the answer has ended."""
        return self._finished.is_set()

    def cancel(self) -> None:
        """Tell the engine to stop; returns immediately, and the answer ends as usual."""
        self._stream.cancel(wait_s=0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds; returns whether it has ended."""
        return self._finished.wait(timeout)

    def result(self) -> Completion:
        """Wait for the end.

        Raises:
            GenerationError: the engine failed.
            Interrupted: Ctrl-C; the request was cancelled, and `.partial` is the partial completion.
        """
        try:
            self._until_finished()
        except KeyboardInterrupt:
            self.cancel()
            self._finished.wait(5)
            raise Interrupted(self._completion) from None
        if self._error is not None:
            raise self._error
        if self._completion is None:  # pragma: no cover - `_run` sets one of the two
            raise UnloadedError("The answer has ended without a result.")
        return self._completion

    def _until_finished(self) -> None:
        self._finished.wait()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            error = self._read()
        except Exception as failed:  # noqa: BLE001 - raised by `result()`
            error = failed
            self._stream.cancel()
        completion = self._stream.partial()
        try:
            self._ended(completion if error is None or completion.text else None, error)
        finally:
            self._completion, self._error = completion, error
            self._finished.set()

    def _read(self) -> BaseException | None:
        """Read the stream to its end; returns the engine's error."""
        buffer = self._stream.start()
        self._follow(buffer)
        return buffer.error

    def _follow(self, buffer: Buffer) -> None:
        position = 0
        while True:
            buffer.wait(position)
            chunks = buffer.read(position)
            position += len(chunks)
            new = "".join(chunk.text for chunk in chunks if chunk.index == 0)
            self.tokens += sum(len(chunk.token_ids) for chunk in chunks if chunk.index == 0)
            thought = "".join(chunk.reasoning for chunk in chunks if chunk.index == 0)
            if thought:
                start = len(self.thought)
                self.thought += thought
                if self._on_thought is not None:
                    self._on_thought(start, thought, self.tokens)
            if new:
                start = len(self.text)
                self.text += new
                self._piece(start, new, self.tokens)
            if buffer.done and not buffer.read(position):
                break
            buffer.wait_done(SEND_EVERY_S)
