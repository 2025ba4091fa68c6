"""Anthropic's `/v1/messages`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from llmlab.serving import fields
from llmlab.serving.answers import Answer, Held, new_id, pieces, reasoning_of
from llmlab.serving.failures import HttpError
from llmlab.serving.service import Json, Service, Streamed, event, read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.types import Completion

ROUTE = "/v1/messages"
_PROMPT = ("model", "messages", "system", "tools", "tool_choice", "thinking")
KNOWN = (
    *(*_PROMPT, "max_tokens", "stop_sequences", "stream", "temperature", "top_p", "top_k", "adapter"),
    *("output_config", "output_format"),
)
_IGNORED = ("metadata", "service_tier", "cache_control", "context_management", "betas", "container")
_TEXTS = ("text",)


def _body_text(content: Any, what: str) -> str:
    """A text, or the text of text blocks."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise HttpError(400, f"{what} must be a text or a list of blocks, got {content!r:.60}.")
    texts = []
    for block in content:
        if fields.mapping(block, what).get("type") not in _TEXTS:
            raise HttpError(400, f"{what}: a block of type {block.get('type')!r:.40} isn't supported.")
        texts.append(str(block.get("text", "")))
    return "\n".join(texts)


def _image(block: Mapping[str, Any]) -> dict[str, Any]:
    source = fields.mapping(block.get("source"), "source")
    if source.get("type") != "base64":
        raise HttpError(400, "An image must be of type base64; URLs aren't fetched.")
    url = f"data:{source.get('media_type', 'image/png')};base64,{source.get('data', '')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _turns(messages: Any) -> list[dict[str, Any]]:
    """Anthropic's messages in OpenAI's form: tool results are turns of their own there."""
    if not isinstance(messages, list) or not messages:
        raise HttpError(400, "messages must be a list with at least one message.")
    turns: list[dict[str, Any]] = []
    for place, one in enumerate(messages):
        message = fields.mapping(one, f"messages[{place}]")
        role, content = message.get("role"), message.get("content")
        if isinstance(content, str):
            turns.append({"role": role, "content": content})
            continue
        if not isinstance(content, list):
            raise HttpError(400, f"messages[{place}]: content must be a text or a list of blocks.")
        parts: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for item in content:
            block = fields.mapping(item, f"messages[{place}].content")
            kind = block.get("type")
            if kind == "text":
                parts.append({"type": "text", "text": str(block.get("text", ""))})
            elif kind == "image":
                parts.append(_image(block))
            elif kind == "tool_use":
                function = {"name": block.get("name"), "arguments": block.get("input") or {}}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            elif kind == "tool_result":
                text = _body_text(block.get("content"), "tool_result")
                turns.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text})
            elif kind not in ("thinking", "redacted_thinking"):
                raise HttpError(400, f"messages[{place}]: a block of type {kind!r:.40} isn't supported.")
        if parts or calls:
            turn: dict[str, Any] = {"role": role, "content": parts or ""}
            turns.append(turn | ({"tool_calls": calls} if calls else {}))
    return turns


def _prompt(body: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The conversation, and the options of its tools."""
    turns = _turns(body.get("messages"))
    system = _body_text(body.get("system"), "system")
    if system:
        turns.insert(0, {"role": "system", "content": system})
    tools = [
        {"function": {**fields.mapping(one, "tools"), "parameters": one.get("input_schema")}}
        for one in fields.listed(body.get("tools"), "tools")
    ]
    choice = fields.mapping(body.get("tool_choice") or {"type": "auto"}, "tool_choice")
    named = {"auto": "auto", "any": "required", "none": "none", "tool": choice.get("name")}.get(str(choice.get("type")))
    return fields.messages_of(turns), fields.tool_options(tools, named)


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("temperature", "top_p", "top_k"):
        fields.put(options, name, body.get(name))
    if body.get("stop_sequences") is not None:
        fields.put(options, "stop", fields.listed(body["stop_sequences"], "stop_sequences"))
    if body.get("adapter") is not None:
        options["adapter"] = body["adapter"]
    thinking = fields.mapping(body.get("thinking") or {}, "thinking")
    if thinking:
        on = thinking.get("type") in ("enabled", "adaptive")
        fields.put(options, "think", thinking.get("budget_tokens", True) if on else False)
    config = fields.mapping(body.get("output_config") or {}, "output_config")
    fields.check_names(config, ("format", "effort"))  # an effort of models that always think: it changes nothing here
    form = fields.first({**config, "beta": body.get("output_format")}, "format", "beta")
    if form is not None:
        fields.put(options, "schema", fields.schema_of(form, "output_config.format"))
    return options


async def create(request: Request) -> Response:
    """The route."""
    service: Service = request.app.state.service
    body = {name: value for name, value in (await read_json(request)).items() if name not in _IGNORED}
    fields.check_names(body, KNOWN)
    model, options = service.find(body.get("model"))
    options |= _options(body)
    if body.get("max_tokens") is None:
        raise HttpError(400, "max_tokens: Field required.")
    options["max_tokens"] = body["max_tokens"]
    messages, tools = _prompt(body)
    options |= tools
    stream = await service.start(lambda: model.stream(messages, **options))
    label = body.get("model") or model.name
    if fields.flag(body.get("stream"), "stream"):
        events = _events(service, model, stream, label, options)
        return Streamed(service, stream, events, route=ROUTE, failed=lambda value: event(value, "error"))
    answer = Answer.of(model, await service.result(request, stream, ROUTE))
    return Json(_message(label, answer, _end(model, answer, options)))


async def count_tokens(request: Request) -> Response:
    """`/v1/messages/count_tokens`."""
    service: Service = request.app.state.service
    body = {name: value for name, value in (await read_json(request)).items() if name not in _IGNORED}
    fields.check_names(body, KNOWN)
    model, _ = service.find(body.get("model"))
    messages, options = _prompt(body)
    tools = [tool.schema for tool in options.get("tools", ())]
    count = await service.work(lambda: len(model.tokenize(model.render(messages, tools=tools or None))))
    return Json({"input_tokens": count})


def _end(model: Model, answer: Answer, options: Mapping[str, Any]) -> dict[str, Any]:
    """Why the answer ended, and the text that stopped it."""
    reason = {"tool_calls": "tool_use", "length": "max_tokens"}.get(answer.reason(), "end_turn")
    found = None
    if reason == "end_turn" and options.get("stop") and model.url is None:
        text = answer.texts[0]
        read = model.detokenize(answer.completion.token_ids)  # with what stopped it, which the text doesn't have
        rest = read.removeprefix(text) if read.startswith(text) else ""
        found = next((stop for stop in options["stop"] if rest.startswith(stop)), None)
    return {"stop_reason": reason if found is None else "stop_sequence", "stop_sequence": found}


def _usage(completion: Completion) -> dict[str, int]:
    used = completion.usage
    return {
        "input_tokens": used.prompt_tokens - used.cached_tokens,
        "cache_read_input_tokens": used.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": used.completion_tokens,
    }


def _shell(label: str) -> dict[str, Any]:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": label,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def _message(label: str, answer: Answer, end: dict[str, Any]) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    thought = reasoning_of(answer.completion)
    if thought:
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if answer.texts[0] or not answer.calls:
        blocks.append({"type": "text", "text": answer.texts[0]})
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)} for call in answer.calls
    ]
    return _shell(label) | end | {"content": blocks, "usage": _usage(answer.completion)}


class _Blocks:
    """The events of content blocks: one is open at a time."""

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""

    def delta(self, kind: str, start: dict[str, Any], delta: dict[str, Any]) -> bytes:
        """A piece of a block; opens it first, and closes the one before."""
        out = b""
        if kind != self._kind:
            out = self.close()
            self._index += 1
            self._kind = kind
            block = {"type": "content_block_start", "index": self._index, "content_block": start}
            out += event(block, "content_block_start")
        piece = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return out + event(piece, "content_block_delta")

    def close(self) -> bytes:
        """The end of the open block; empty without one."""
        if not self._kind:
            return b""
        self._kind = ""
        return event({"type": "content_block_stop", "index": self._index}, "content_block_stop")


async def _events(
    service: Service, model: Model, stream: Stream, label: str, options: Mapping[str, Any]
) -> AsyncIterator[bytes]:
    yield event({"type": "message_start", "message": _shell(label)}, "message_start")
    blocks, held = _Blocks(), Held(tools=bool(options.get("tools")))

    def text_piece(text: str) -> bytes:
        return blocks.delta("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": text})

    async for chunk, text in pieces(stream, held):
        thought = getattr(chunk, "reasoning", "")
        if thought:
            start = {"type": "thinking", "thinking": "", "signature": ""}
            yield blocks.delta("thinking", start, {"type": "thinking_delta", "thinking": thought})
        if text:
            yield text_piece(text)
    answer = Answer.of(model, await service.work(lambda: service.finish(stream, ROUTE)))
    rest = held.rest(answer.texts[0])
    if rest:
        yield text_piece(rest)
    for place, call in enumerate(answer.calls):
        begun: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        piece = {"type": "input_json_delta", "partial_json": json.dumps(dict(call.arguments), ensure_ascii=False)}
        yield blocks.delta(f"tool{place}", begun, piece)
    yield blocks.close()
    ended = _end(model, answer, options)
    yield event({"type": "message_delta", "delta": ended, "usage": _usage(answer.completion)}, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")
