"""OpenAI's `/v1/responses`, without stored responses: each request holds its conversation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from llmlab.serving import fields
from llmlab.serving.answers import Answer, Held, new_id, now, pieces, reasoning_of
from llmlab.serving.failures import HttpError
from llmlab.serving.service import Json, Service, Streamed, event, read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from llmlab.inference.stream import Stream
    from llmlab.model import Model

ROUTE = "/v1/responses"
KNOWN = (
    *("model", "input", "instructions", "max_output_tokens", "temperature", "top_p", "stream", "stream_options"),
    *("tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "adapter", "seed", "top_k", "min_p"),
    *("previous_response_id", "include", "truncation", "background"),
)


def _parts(content: Any) -> Any:
    """Content parts in the form of chat completions."""
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[dict[str, Any]] = []
    for one in content if isinstance(content, list) else [content]:
        part = fields.mapping(one, "content")
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text"):
            parts.append({"type": "text", "text": str(part.get("text", ""))})
        elif kind == "input_image":
            parts.append({"type": "image_url", "image_url": {"url": str(part.get("image_url"))}})
        else:
            raise HttpError(400, f"A content part of type {kind!r:.40} isn't supported.", "unsupported", "input")
    return parts


def _turns(given: Any, instructions: Any) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    if instructions:
        turns.append({"role": "system", "content": _parts(instructions)})
    if isinstance(given, str):
        return [*turns, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise HttpError(400, "input must be a text or a list of items.", "invalid_value", "input")
    for place, one in enumerate(given):
        item = fields.mapping(one, f"input[{place}]")
        kind = item.get("type", "message")
        if kind == "message":
            turns.append({"role": item.get("role"), "content": _parts(item.get("content"))})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if turns and turns[-1].get("tool_calls"):
                turns[-1]["tool_calls"].append(call)
            else:
                turns.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "function_call_output":
            content = _parts(item.get("output"))
            turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind != "reasoning":
            raise HttpError(400, f"input[{place}]: an item of type {kind!r:.40} isn't supported.", "unsupported")
    return turns


def _options(model: Model, body: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("temperature", "top_p", "top_k", "min_p", "seed"):
        fields.put(options, name, body.get(name))
    limit = body.get("max_output_tokens")
    options["max_tokens"] = limit if limit is not None else model.facts.context_length
    form = fields.mapping(body.get("text") or {}, "text").get("format")
    if form is not None:
        fields.put(options, "schema", fields.schema_of(form))
    effort = fields.mapping(body.get("reasoning") or {}, "reasoning").get("effort")
    fields.put(options, "think", fields.think_of({"reasoning_effort": effort}))
    if body.get("adapter") is not None:
        options["adapter"] = body["adapter"]
    return options | fields.tool_options(body.get("tools"), body.get("tool_choice"))


async def create(request: Request) -> Response:
    """The route."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, KNOWN)
    for name in ("previous_response_id", "background"):
        if body.get(name):
            raise HttpError(400, f"{name} isn't supported: responses aren't stored.", "unsupported", name)
    model, options = service.find(body.get("model"))
    options |= _options(model, body)
    messages = fields.messages_of(_turns(body.get("input"), body.get("instructions")))
    stream = await service.start(lambda: model.stream(messages, **options))
    shell = _shell(model, body)
    if fields.flag(body.get("stream"), "stream"):
        events = _events(service, model, stream, shell, tools=bool(options.get("tools")))
        return Streamed(service, stream, events, route=ROUTE, failed=_failed)
    answer = Answer.of(model, await service.result(request, stream, ROUTE))
    return Json(_done(shell, answer, _items(answer)))


def _failed(value: Mapping[str, Any]) -> bytes:
    return event({"type": "error", "sequence_number": 0, **value["error"]}, "error")


def _shell(model: Model, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body.get("model") or model.name,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": body.get("temperature"),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
    }


def _items(answer: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    thought = reasoning_of(answer.completion)
    if thought:
        items.append(_thought(new_id("rs_"), thought))
    if answer.texts[0] or not answer.calls:
        items.append(_message(new_id("msg_"), answer.texts[0], "completed"))
    return [*items, *_calls(answer)]


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "type": "function_call",
            "id": new_id("fc_"),
            "call_id": call.id,
            "name": call.name,
            "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
            "status": "completed",
        }
        for call in answer.calls
    ]


def _thought(item: str, text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": item, "summary": [], "content": content}


def _message(item: str, text: str | None, status: str) -> dict[str, Any]:
    content = [] if text is None else [_text(text)]
    return {"type": "message", "id": item, "status": status, "role": "assistant", "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _done(shell: dict[str, Any], answer: Answer, items: list[dict[str, Any]]) -> dict[str, Any]:
    used, cut = answer.completion.usage, answer.reason() == "length"
    return shell | {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": items,
        "usage": {
            "input_tokens": used.prompt_tokens,
            "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": used.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": int(getattr(answer.completion, "reasoning_tokens", 0))},
            "total_tokens": used.total_tokens,
        },
    }


class _Items:
    """The events of output items: numbered, and one item is open at a time."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._number = -1
        self._kind = ""
        self._text = ""
        self._where: dict[str, Any] = {}

    def write(self, kind: str, **values: Any) -> bytes:
        """An event."""
        self._number += 1
        return event({"type": kind, "sequence_number": self._number, **values}, kind)

    def piece(self, kind: str, text: str) -> bytes:
        """New text of a thought ("reasoning") or of the answer ("message"); opens its item first."""
        out = b"" if kind == self._kind else self.close() + self._open(kind)
        self._text += text
        if kind == "reasoning":
            return out + self.write("response.reasoning_text.delta", **self._where, delta=text)
        return out + self.write("response.output_text.delta", **self._where, delta=text, logprobs=[])

    def _open(self, kind: str) -> bytes:
        place = len(self.items)
        self._kind, self._text = kind, ""
        item = new_id("rs_" if kind == "reasoning" else "msg_")
        self._where = {"item_id": item, "output_index": place, "content_index": 0}
        if kind == "reasoning":
            added: dict[str, Any] = {"type": "reasoning", "id": item, "summary": [], "content": []}
            return self.write("response.output_item.added", output_index=place, item=added)
        added = _message(item, None, "in_progress")
        out = self.write("response.output_item.added", output_index=place, item=added)
        return out + self.write("response.content_part.added", **self._where, part=_text(""))

    def close(self) -> bytes:
        """The end of the open item; empty without one."""
        kind, text, item = self._kind, self._text, self._where.get("item_id", "")
        if not kind:
            return b""
        self._kind = ""
        if kind == "reasoning":
            self.items.append(_thought(item, text))
            out = self.write("response.reasoning_text.done", **self._where, text=text)
        else:
            self.items.append(_message(item, text, "completed"))
            out = self.write("response.output_text.done", **self._where, text=text, logprobs=[])
            out += self.write("response.content_part.done", **self._where, part=_text(text))
        return out + self.write("response.output_item.done", output_index=len(self.items) - 1, item=self.items[-1])

    def call(self, call: dict[str, Any]) -> bytes:
        """All events of a call."""
        place = {"item_id": call["id"], "output_index": len(self.items)}
        started = call | {"arguments": "", "status": "in_progress"}
        out = self.write("response.output_item.added", output_index=len(self.items), item=started)
        out += self.write("response.function_call_arguments.delta", **place, delta=call["arguments"])
        made = {"arguments": call["arguments"], "name": call["name"]}
        out += self.write("response.function_call_arguments.done", **place, **made)
        self.items.append(call)
        return out + self.write("response.output_item.done", output_index=len(self.items) - 1, item=call)


async def _events(
    service: Service, model: Model, stream: Stream, shell: dict[str, Any], *, tools: bool
) -> AsyncIterator[bytes]:
    items, held = _Items(), Held(tools=tools)
    yield items.write("response.created", response=shell)
    yield items.write("response.in_progress", response=shell)
    async for chunk, text in pieces(stream, held):
        thought = getattr(chunk, "reasoning", "")
        if thought:
            yield items.piece("reasoning", thought)
        if text:
            yield items.piece("message", text)
    answer = Answer.of(model, await service.work(lambda: service.finish(stream, ROUTE)))
    rest = held.rest(answer.texts[0])
    if rest:
        yield items.piece("message", rest)
    yield items.close()
    for call in _calls(answer):
        yield items.call(call)
    done = _done(shell, answer, items.items)
    ended = "response.incomplete" if done["status"] == "incomplete" else "response.completed"
    yield items.write(ended, response=done)
