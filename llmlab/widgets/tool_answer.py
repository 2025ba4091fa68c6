"""An answer with tools: forwards each step of the loop, and waits for the user's approval of each call."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from llmlab.errors import LlmLabError, unknown
from llmlab.tool_calls import ToolStream
from llmlab.tool_calls.options import ask_user, can_ask
from llmlab.types import ToolCall, ToolStep
from llmlab.widgets.pump import Answering

RESULT_SHOWN = 4000
"""Characters of a result on the page and in the notebook; the model reads more."""
_POLL_S = 0.1


class Gate:
    """Decides whether calls may run; a call waits in its answer's thread until someone decides.

    Args:
        always: names of the tools that run without approval; a decision for good adds to it.
        function: decides instead of the user.

    Attributes:
        changed: called when a call begins or ends to wait.
        denied: ids of the calls that the user denied.
    """

    def __init__(self, always: set[str], function: Callable[[ToolCall], bool] | None = None) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._always = always
        self._function = function
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[ToolCall, Future[bool]]] = {}
        self._closed = False
        self.denied: set[str] = set()

    def __call__(self, call: ToolCall) -> bool:
        """Wait for the decision on a call."""
        if self._function is not None:
            return bool(self._function(call))
        if call.name in self._always:
            return True
        decision: Future[bool] = Future()
        with self._lock:
            if self._closed:
                return False
            self._waiting[call.id] = (call, decision)
        self.changed()
        try:
            return decision.result()
        finally:
            with self._lock:
                self._waiting.pop(call.id, None)
            self.changed()

    @property
    def waiting(self) -> list[ToolCall]:
        """The calls that wait, oldest first."""
        with self._lock:
            return [call for call, _ in self._waiting.values()]

    def decide(self, call_id: str, allow: bool, *, always: bool = False) -> None:
        """Decide on a waiting call.

        Args:
            call_id: the call's id; "" for the one that waits.
            allow: whether it may run.
            always: also allow later calls of the same tool.

        Raises:
            LlmLabError: no call is waiting.
            UnknownNameError: this one isn't.
        """
        with self._lock:
            if not self._waiting:
                raise LlmLabError("No call is waiting for approval.")
            key = call_id or next(iter(self._waiting))
            if key not in self._waiting:
                raise unknown("waiting call", key, list(self._waiting))
            call, decision = self._waiting.pop(key)
            if allow and always:
                self._always.add(call.name)
            if not allow:
                self.denied.add(key)
        if not decision.done():
            decision.set_result(allow)

    def close(self) -> None:
        """Deny what is waiting, and everything after it: the answer was stopped."""
        with self._lock:
            self._closed = True
            open_calls = [decision for _, decision in self._waiting.values()]
        for decision in open_calls:
            if not decision.done():
                decision.set_result(False)


class ToolAnswering(Answering):
    """A running answer with tools. Its thread runs the plain functions.

    Args:
        stream: the loop.
        gate: the approval of its calls.
        steps: called with the steps so far, as data for the page, whenever one changes.
        more: the arguments of `Answering`.
    """

    def __init__(
        self, stream: ToolStream, gate: Gate, steps: Callable[[list[dict[str, Any]]], None], **more: Any
    ) -> None:
        self._loop = stream
        self._gate = gate
        self._on_steps = steps
        self._cancelled = False
        self.steps: list[dict[str, Any]] = []
        gate.changed = self.show_steps
        stream.listen(self.show_steps)
        super().__init__(stream, **more)

    def show_steps(self) -> None:
        """Forward the steps."""
        before, self.steps = len(self.steps), rows(self._loop.steps, self._gate)
        if len(self.steps) > before:
            self.text = self.thought = ""  # it was the calls, which are shown as steps now
        self._on_steps(self.steps)

    def cancel(self) -> None:
        """Stop at the next token, or after the tool that is running."""
        self._cancelled = True
        self._gate.close()
        current = self._loop.current
        if current.started:
            current.cancel(wait_s=0)

    def _read(self) -> BaseException | None:
        while True:
            buffer = self._loop.start()
            self._follow(buffer)
            if buffer.error is not None:
                return buffer.error
            if self._cancelled:
                break
            self._loop.settle()
            if self._loop.done or self._cancelled:
                break
            self.text = self.thought = ""  # the next step's
        if not self._loop.done:
            self._loop.cancel(wait_s=0)
        self.show_steps()
        return None

    def _until_finished(self) -> None:
        """Wait for the end; in a cell, which blocks the page's messages, approvals are prompted for below it."""
        main = threading.current_thread() is threading.main_thread()
        while not self._finished.wait(_POLL_S):
            if main and self._gate.waiting and can_ask():
                call = self._gate.waiting[0]
                self._gate.decide(call.id, ask_user(call))


def rows(steps: Sequence[ToolStep], gate: Gate | None = None) -> list[dict[str, Any]]:
    """Steps as data for the page and the notebook.

    Args:
        steps: the calls so far.
        gate: the approval of a running answer's calls.
    """
    waiting = {call.id for call in gate.waiting} if gate is not None else set()
    denied = gate.denied if gate is not None else set()
    out = []
    for step in steps:
        state = "done" if step.result is not None else "failed"
        if step.running:
            state = "waiting" if step.call.id in waiting else "queued" if waiting else "running"
        if step.error and step.call.id in denied:
            state = "denied"
        arguments = {name: _plain(value) for name, value in step.arguments.items()}
        out.append(
            {
                "id": step.call.id,
                "name": step.name,
                "arguments": arguments,
                "state": state,
                "result": (step.result or "")[:RESULT_SHOWN],
                "error": step.error,
                "seconds": round(step.seconds, 4),
            }
        )
    return out


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return json.loads(json.dumps(value, default=str))
