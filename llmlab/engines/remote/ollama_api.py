"""Ollama's own API, which sets the context length: the body of a request, and the pieces of its streamed answer."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from llmlab.engines.remote.answers import Calls, Piece, count_of, form_of, parsed, reason_of, tokens_of
from llmlab.engines.remote.openai_api import sampling_fields
from llmlab.errors import GenerationError

if TYPE_CHECKING:
    from llmlab.engines.base import Request, Unrendered
    from llmlab.engines.remote.servers import Kind
    from llmlab.types import Message


def path_of(request: Request) -> str:
    """The route of a request."""
    assert request.unrendered is not None
    return "/api/generate" if request.unrendered.text is not None else "/api/chat"


def body_of(request: Request, kind: Kind, model: str, context: int) -> dict[str, Any]:
    """The body of a request.

    Args:
        request: what was asked.
        kind: Ollama.
        model: the model's name there.
        context: the context length to run it with.
    """
    asked, params = request.unrendered, request.params
    assert asked is not None
    # Without these two, a prompt that is too long is cut silently, and so is its start while the answer grows.
    body: dict[str, Any] = {"model": model, "stream": True, "truncate": False, "shift": False}
    body["options"] = {**sampling_fields(params, kind), "num_ctx": context}
    if asked.text is not None:
        body |= {"prompt": asked.text, "raw": True}
    else:
        body |= conversation(asked, request.begun)
    if params.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": params.logprobs}
    if request.guide is not None:
        body["format"] = request.guide.schema or json.loads(request.guide.text)
    return body


def conversation(asked: Unrendered, begun: str = "") -> dict[str, Any]:
    """The fields of a conversation, with the answer that was begun as its last message."""
    turns = [_message(message) for message in asked.messages]
    body: dict[str, Any] = {"messages": [*turns, {"role": "assistant", "content": begun}] if begun else turns}
    if asked.tools:
        body["tools"] = [dict(one) for one in asked.tools]
    if asked.think is not None:
        body["think"] = asked.think if isinstance(asked.think, str) else bool(asked.think)
    return body


def _message(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        turn["images"] = [base64.b64encode(one).decode() for one in message.images]
    if message.tool_calls:
        turn["tool_calls"] = [{"function": dict(call.get("function", call))} for call in message.tool_calls]
    if message.reasoning:
        turn["thinking"] = message.reasoning
    if message.role == "tool" and message.name:
        turn["tool_name"] = message.name
    return turn


async def pieces(lines: AsyncIterator[str]) -> AsyncGenerator[Piece, None]:
    """The pieces of an answer, from newline-delimited JSON.

    Raises:
        GenerationError: the stream is malformed, has an error, or ends early.
    """
    calls = Calls()
    async for line in lines:
        if not line.strip():
            continue
        value = parsed(line)
        with form_of(line):
            piece = _piece(value, calls)
        yield piece
        if piece.reason is not None:
            return
    raise GenerationError("The server closed the connection before the answer ended.")


def _piece(value: Mapping[str, Any], calls: Calls) -> Piece:
    message: Mapping[str, Any] = value.get("message") or {
        "content": value.get("response"),
        "thinking": value.get("thinking"),
    }
    calls.add({**call, "index": len(calls.names) + place} for place, call in enumerate(message.get("tool_calls") or ()))
    text = str(message.get("content") or "")
    done = bool(value.get("done"))
    return Piece(
        calls.after(text) if done else text,
        str(message.get("thinking") or ""),
        logprobs=tokens_of(value.get("logprobs")),
        reason=(reason_of(value.get("done_reason")) or "stop") if done else None,
        prompt_tokens=count_of(value.get("prompt_eval_count")) if done else None,
        tokens=count_of(value.get("eval_count")) if done else None,
    )
