"""What the two APIs share: the parts of an answer as they arrive, and log probabilities."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmlab.errors import GenerationError
from llmlab.types import FinishReason, TokenLogprob

UNKNOWN_ID = -1
"""The id of a token whose server reports its text only."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: of the answer.
        thought: of the thought before it.
        ids: the tokens, where the server reports them.
        reason: why the answer ended; None before.
        prompt_tokens, tokens, cached: the counts, at the end.
        thought_tokens: those of the thought among `tokens`, where the server reports them.
    """

    text: str = ""
    thought: str = ""
    ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reason: FinishReason | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    cached: int | None = None
    thought_tokens: int | None = None


@dataclass
class Calls:
    """Tool calls as they arrive in pieces, and as the text that `llmlab.tool_calls.generic.SERVER` reads."""

    names: dict[int, str] = field(default_factory=dict)
    arguments: dict[int, str] = field(default_factory=dict)

    def add(self, deltas: Iterable[Any]) -> None:
        """Add the pieces of a chunk."""
        for place, delta in enumerate(deltas):
            inner = delta.get("function") or {}
            index = delta.get("index")
            index = index if isinstance(index, int) else len(self.names) if inner.get("name") else place
            if inner.get("name"):
                self.names[index] = self.names.get(index, "") + str(inner["name"])
            given = inner.get("arguments")
            if given is not None:
                text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
                self.arguments[index] = self.arguments.get(index, "") + text

    def text(self) -> str:
        """The calls, one marked JSON object each; "" if there are none."""
        parts = []
        for index, name in sorted(self.names.items()):
            raw = self.arguments.get(index, "").strip() or "{}"
            try:
                value = json.loads(raw)
            except ValueError:
                value = raw  # reported to the model as a call that can't be read
            call = json.dumps({"name": name, "arguments": value}, ensure_ascii=False)
            parts.append(f"<tool_call>{call}</tool_call>")
        return "\n".join(parts)

    def after(self, text: str) -> str:
        """The last text of an answer, with the calls below it."""
        return "\n".join(part for part in (text, self.text()) if part)


def reason_of(value: Any) -> FinishReason | None:
    """Llmlab's finish reason for a server's. A call is read from the text, so it ended by itself.

    Raises:
        GenerationError: the server cut the answer off.
    """
    if value in (None, ""):
        return None
    if value in ("length", "max_tokens", "model_length", "limit"):
        return "length"
    if value in ("abort", "cancelled", "interrupted", "unload"):
        return "interrupted"
    if value in ("content_filter", "error", "safety"):
        raise GenerationError(f"The server ended the answer: {value}.")
    return "stop"


def tokens_of(items: Any) -> tuple[TokenLogprob, ...]:
    """The log probabilities of a chunk, in the form of chat completions."""
    return tuple(_token(item) for item in items or () if isinstance(item, Mapping))


def _token(item: Mapping[str, Any]) -> TokenLogprob:
    top = tuple(
        (int(one.get("id", UNKNOWN_ID)), str(one.get("token", "")), float(one.get("logprob", 0.0)))
        for one in item.get("top_logprobs") or ()
    )
    text = str(item.get("token", ""))
    raw = item.get("bytes")
    spelled = [int(one) for one in raw] if isinstance(raw, list) else list(text.encode())
    return TokenLogprob(int(item.get("id", UNKNOWN_ID)), text, float(item.get("logprob", 0.0)), top, spelled)


def old_tokens_of(value: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log probabilities of a chunk, in the form of the older completions."""
    found = []
    tops = value.get("top_logprobs") or []
    for place, (text, logprob) in enumerate(
        zip(value.get("tokens") or (), value.get("token_logprobs") or (), strict=False)
    ):
        listed = tops[place] if place < len(tops) and isinstance(tops[place], Mapping) else {}
        top = tuple((UNKNOWN_ID, str(one), float(listed[one])) for one in listed)
        found.append(TokenLogprob(UNKNOWN_ID, str(text), float(logprob or 0.0), top, list(str(text).encode())))
    return tuple(found)


def count_of(value: Any) -> int | None:
    """A number of tokens; None if it isn't one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@contextlib.contextmanager
def form_of(text: str) -> Iterator[None]:
    """Reports a part of a stream that has another form than its API's.

    Raises:
        GenerationError: it has.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise GenerationError(f"The server sent a line in another form than its API's: {text!r}.") from None


def parsed(text: str) -> dict[str, Any]:
    """A line of a stream as JSON.

    Raises:
        GenerationError: it is an error, or no JSON object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise GenerationError(f"The server sent a line that isn't JSON: {text!r}.") from None
    if not isinstance(value, dict):
        raise GenerationError(f"The server sent a line that isn't a JSON object: {text!r}.")
    problem = value.get("error")
    if problem:
        said = problem.get("message", problem) if isinstance(problem, Mapping) else problem
        raise GenerationError(f"The server failed: {' '.join(str(said).split())}")
    return value
