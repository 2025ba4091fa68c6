"""What answers rows: a loaded or attached model, through its running batch."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

from llmlab.adapters.attached import parse
from llmlab.errors import GenerationError, LlmLabError, UnloadedError
from llmlab.inference.stream import CANCEL_WAIT_S
from llmlab.jobs.rows import plain

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.jobs.template import Prompt
    from llmlab.model import Model
    from llmlab.types import Completion

_LEAST_AT_ONCE = 16
_PROBE_S = 30.0
_CONNECT_S = 3.0
_SPEED_OVER = 50
# HTTP: the server refuses this client, not this row.
_CLIENT_REFUSED = (401, 403)

Ready = Callable[["Worker", int], None]


@dataclass(frozen=True, slots=True)
class Task:
    """One request.

    Attributes:
        index: the row.
        prompt: a user's text or a conversation.
        options: the keywords of `Model.stream`.
    """

    index: int
    prompt: Prompt
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended.

    Attributes:
        kind: done; row: this row can't be answered; again: it may be answered by another try; gone: the worker is lost.
        record: the answer's columns.
        error: why there is none.
    """

    kind: Literal["done", "row", "again", "gone"]
    record: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class Worker(Protocol):
    """Answers several rows at once. All methods are called on the job's thread."""

    name: str
    limit: int

    def start(self, task: Task, ready: Ready) -> None:
        """Begin with a row. `ready(worker, index)` is called from any thread when `finish` won't wait.

        Raises:
            LlmLabError: the row can't be answered.
        """

    def finish(self, index: int) -> Outcome:
        """The end of a row."""

    def alive(self) -> bool:
        """Whether it answers at all; asked after a failure."""

    def revive(self) -> bool:
        """Begin anew after it was lost; False if it can't be used now."""

    def drop(self) -> None:
        """End all running rows, without an outcome."""

    def close(self) -> None:
        """Free what the worker has made."""


class Speed:
    """Rows per second over the last rows."""

    def __init__(self, over: int = _SPEED_OVER) -> None:
        self._ends: deque[float] = deque(maxlen=over)

    def idle(self) -> None:
        """The worker had nothing to do: the time until its next row doesn't count."""
        self._ends.clear()

    def count(self) -> None:
        """A row has ended."""
        self._ends.append(time.monotonic())

    @property
    def rate(self) -> float | None:
        """Rows per second; None before two have ended."""
        if len(self._ends) < 2 or self._ends[-1] <= self._ends[0]:
            return None
        return (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])


class ModelWorker:
    """A model of this process, or one on a server.

    Args:
        model: the model; it stays loaded.
        sources: name -> where an adapter is, for those that aren't attached yet.
    """

    def __init__(self, model: Model, sources: Mapping[str, str] | None = None) -> None:
        self.name = model.name
        self.model = model
        most = model.plan.max_concurrency
        self.limit = most if model.url is not None else max(2 * most, _LEAST_AT_ONCE)
        self._sources = sources or {}
        self._running: dict[int, Stream] = {}

    def start(self, task: Task, ready: Ready) -> None:
        """See `Worker`."""
        attach_named(self.model, task.options.get("adapter"), self._sources)
        stream = self.model.stream(task.prompt if isinstance(task.prompt, str) else list(task.prompt), **task.options)
        index = task.index
        buffer = stream.start()
        self._running[index] = stream
        told: list[bool] = []

        def ended() -> None:
            if buffer.done and not told:
                told.append(True)
                ready(self, index)

        buffer.listen(ended)
        ended()

    def finish(self, index: int) -> Outcome:
        """See `Worker`."""
        return outcome(self._running.pop(index))

    def alive(self) -> bool:
        """See `Worker`."""
        return answers(self.model)

    def revive(self) -> bool:
        """See `Worker`. A server may be there again; an engine that has failed stays so."""
        return self.model.url is not None and answers(self.model)

    def drop(self) -> None:
        """See `Worker`."""
        running, self._running = list(self._running.values()), {}
        for stream in running:
            stream.cancel(wait_s=0)
        for stream in running:
            stream.wait(CANCEL_WAIT_S)

    def close(self) -> None:
        """See `Worker`."""
        self.drop()


def attach_named(model: Model, spec: str | None, sources: Mapping[str, str]) -> None:
    """Attach the adapters of a request that aren't attached yet.

    Raises:
        LlmLabError: there is no such adapter, or the engine refuses it.
    """
    for name, _ in parse(spec) if spec else ():
        if name not in model.adapters:
            model.add_adapter(name, sources.get(name, name))


def check_options(model: Model, options: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Refuse what a model can't do before the first row: each row would fail with it.

    Raises:
        LlmLabError: the option, and where it works.
    """
    attach_named(model, options.get("adapter"), sources)
    model.stream("a", **options)


def adapter_of(value: Any) -> tuple[str | None, Mapping[str, str]]:
    """(the `adapter=` of requests, name -> source) of a row's value: a name, a mix, a path, or nothing.

    Example:
        >>> adapter_of("pirate:0.5"), adapter_of("none"), adapter_of("./tuned/terse")
        (('pirate:0.5', {}), (None, {}), ('terse', {'terse': './tuned/terse'}))
    """
    text = str(value or "").strip()
    if text in ("", "none"):
        return None, {}
    if "/" not in text and "\\" not in text:
        return text, {}
    name = Path(text).stem
    return name, {name: text}


def answers(model: Model) -> bool:
    """Whether a model answers at all: a server takes a connection, an engine generates a token."""
    if not model.loaded:
        return False
    if model.url is not None:
        parts = urlsplit(model.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), _CONNECT_S).close()
        except OSError:
            return False
        return True
    try:
        stream = model.stream("a", raw=True, max_tokens=1, temperature=0, adapter=None)
        buffer = stream.start()
        return stream.wait(_PROBE_S) and buffer.error is None
    except LlmLabError:
        return False


def outcome(stream: Stream) -> Outcome:
    """How a request that has ended did."""
    try:
        done = stream.result()
    except UnloadedError as error:
        return Outcome("gone", error=str(error))
    except GenerationError as error:
        status = getattr(error, "status", 0)
        if status in _CLIENT_REFUSED:
            return Outcome("gone", error=str(error))
        return Outcome("row" if 400 <= status < 500 and status not in (408, 429) else "again", error=str(error))
    except LlmLabError as error:
        return Outcome("row", error=str(error))
    if done.finish_reason == "interrupted":
        return Outcome("again", error="The request was interrupted.")
    return Outcome("done", record_of(done))


def record_of(done: Completion) -> dict[str, Any]:
    """The columns of an answer; nothing that depends on what computed it."""
    choice = done.choices[0]
    error = ""
    if choice.parse_error:
        error = f"The answer isn't valid: {choice.parse_error}"
    elif done.guidance is not None and done.finish_reason == "length":
        error = "The answer was cut at max_tokens before the constraint was met."
    return {
        "text": done.text,
        "parsed": plain(done.parsed) if done.parsed is not None else None,
        "reasoning": done.reasoning,
        "finish_reason": done.finish_reason,
        "prompt_tokens": done.usage.prompt_tokens,
        "tokens": done.usage.completion_tokens,
        "error": error,
        **({"probabilities": dict(done.probabilities)} if done.probabilities is not None else {}),
    }


def failed_record(error: str) -> dict[str, Any]:
    """The columns of a row without an answer."""
    return {
        "text": "", "parsed": None, "reasoning": "", "finish_reason": "error", "prompt_tokens": 0, "tokens": 0,
        "error": error,
    }  # fmt: skip
