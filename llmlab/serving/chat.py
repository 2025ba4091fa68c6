"""OpenAI's `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmlab.serving import fields
from llmlab.serving.answers import Answer, Held, call_dict, chat_logprobs, new_id, now, reasoning_of, usage
from llmlab.serving.service import Json, Service, Streamed, event, follow, read_json, to_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.types import Chunk

ROUTE = "/v1/chat/completions"
KNOWN = (
    *fields.COMMON,
    *("messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice"),
    *("return_token_ids", "parallel_tool_calls", "think", "reasoning_effort", "chat_template_kwargs", "prefix"),
)


@dataclass(frozen=True)
class Asked:
    """A validated request.

    Attributes:
        label: the model as the client named it.
        one_call: return only the first of several calls.
        stream_usage: end the stream with the token counts.
        token_ids: also return the ids of the generated tokens, as vLLM does.
    """

    model: Model
    label: str
    messages: list[Any]
    options: dict[str, Any]
    stream: bool = False
    stream_usage: bool = False
    one_call: bool = False
    token_ids: bool = False
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=now)

    @property
    def tools(self) -> bool:
        """Whether the answer may be a call."""
        return bool(self.options.get("tools")) and self.options.get("tool_choice") != "none"


def read(service: Service, body: Mapping[str, Any]) -> Asked:
    """Validate a request's body."""
    fields.check_names(body, KNOWN)
    model, named = service.find(body.get("model"))
    options = {**named, **fields.options_of(body)}
    options |= fields.tool_options(body.get("tools"), body.get("tool_choice"))
    limit = fields.first(body, "max_completion_tokens", "max_tokens")
    options["max_tokens"] = limit if limit is not None else model.facts.context_length
    if fields.flag(body.get("logprobs"), "logprobs"):
        options["logprobs"] = fields.whole(body.get("top_logprobs") or 0, "top_logprobs", 0, 100)
    fields.put(options, "think", fields.think_of(body))
    fields.put(options, "template_kwargs", fields.template_kwargs(body))
    fields.put(options, "prefix", body.get("prefix"))
    more = fields.mapping(body.get("stream_options") or {}, "stream_options")
    return Asked(
        model,
        body.get("model") or model.name,
        fields.messages_of(body.get("messages")),
        options,
        stream=fields.flag(body.get("stream"), "stream"),
        stream_usage=fields.flag(more.get("include_usage"), "stream_options.include_usage"),
        token_ids=fields.flag(body.get("return_token_ids"), "return_token_ids"),
        one_call=body.get("parallel_tool_calls") is False,
    )


async def chat_completions(request: Request) -> Response:
    """The route."""
    service: Service = request.app.state.service
    asked = read(service, await read_json(request))
    stream = await service.start(lambda: asked.model.stream(asked.messages, **asked.options))
    if asked.stream:
        return Streamed(service, stream, _events(service, asked, stream), route=ROUTE)
    answer = Answer.of(asked.model, await service.result(request, stream, ROUTE))
    return Json(_whole(asked, answer))


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    return {
        "id": asked.id,
        "object": kind,
        "created": asked.created,
        "model": asked.label,
        "system_fingerprint": f"llmlab-{asked.model.engine}-{asked.model.quant}",
    }


def _calls(asked: Asked, answer: Answer) -> list[dict[str, Any]]:
    calls = answer.calls[:1] if asked.one_call else answer.calls
    return [call_dict(call) for call in calls]


def _whole(asked: Asked, answer: Answer) -> dict[str, Any]:
    choices = []
    for index, text in enumerate(answer.texts):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if answer.calls:
            message |= {"content": text or None, "tool_calls": _calls(asked, answer)}
        thought = reasoning_of(answer.completion, index)
        if thought:  # vLLM renamed the second to the first, and clients read either
            message |= {"reasoning": thought, "reasoning_content": thought}
        logprobs = answer.completion.choices[index].logprobs
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": {"content": chat_logprobs(logprobs, ids=asked.token_ids), "refusal": None}
                if logprobs is not None
                else None,
                "finish_reason": answer.reason(index),
                **({"token_ids": list(answer.completion.choices[index].token_ids)} if asked.token_ids else {}),
            }
        )
    return {**_head(asked, "chat.completion"), "choices": choices, "usage": usage([answer.completion])}


class _Chunks:
    """Writes the chunks of one stream.

    Args:
        asked: the request.
        head: the fields that all its chunks begin with.
    """

    def __init__(self, asked: Asked, head: Mapping[str, Any]) -> None:
        self._start = b"data: " + to_json(head)[:-1] + b',"choices":['
        self._logprobs = "logprobs" in asked.options
        self._ids = asked.token_ids
        self.held = [Held(tools=asked.tools) for _ in range(asked.options.get("n", 1))]

    def one(
        self, index: int, delta: dict[str, Any], reason: str | None = None, tokens: Any = (), ids: Any = ()
    ) -> bytes:
        """A chunk with a choice's delta."""
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        if self._logprobs and tokens:
            choice["logprobs"] = {"content": chat_logprobs(tokens, ids=self._ids), "refusal": None}
        if self._ids and ids:
            choice["token_ids"] = list(ids)
        return self._start + to_json(choice) + b"]}\n\n"

    def of(self, chunk: Chunk) -> bytes:
        """A chunk for new text; empty if there is nothing to send yet."""
        text = self.held[chunk.index].pass_on(chunk.text)
        if text and not (self._logprobs or self._ids or chunk.reasoning):
            # As `one` writes it, without the encoder: this runs thousands of times a second.
            return b'%b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]}\n\n' % (
                self._start, chunk.index, to_json(text),
            )  # fmt: skip
        delta: dict[str, Any] = {"content": text} if text else {}
        thought = chunk.reasoning
        if thought:
            delta |= {"reasoning": thought, "reasoning_content": thought}
        ids = chunk.token_ids if self._ids and not thought else ()
        if delta or ids or (self._logprobs and chunk.logprobs):
            return self.one(chunk.index, delta, tokens=chunk.logprobs, ids=ids)
        return b""


async def _events(service: Service, asked: Asked, stream: Stream) -> AsyncIterator[bytes]:
    head = _head(asked, "chat.completion.chunk")
    if asked.stream_usage:
        head["usage"] = None
    chunks = _Chunks(asked, head)
    indices = range(len(chunks.held))
    for index in indices:
        yield chunks.one(index, {"role": "assistant", "content": ""})
    async for fresh in follow(stream):
        yield b"".join(map(chunks.of, fresh))  # what has arrived by now is sent together
    answer = Answer.of(asked.model, await service.work(lambda: service.finish(stream, ROUTE)))
    for index in indices:
        rest = chunks.held[index].rest(answer.texts[index])
        if rest:
            yield chunks.one(index, {"content": rest})
        if answer.calls:
            calls = [{"index": place, **call} for place, call in enumerate(_calls(asked, answer))]
            yield chunks.one(index, {"tool_calls": calls})
        yield chunks.one(index, {}, answer.reason(index))
    if asked.stream_usage:
        yield event({**head, "choices": [], "usage": usage([answer.completion])})
    yield b"data: [DONE]\n\n"
