"""OpenAI's API: the body of a request, and the pieces of its streamed answer."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmlab.engines.remote.answers import Calls, Piece, count_of, form_of, old_tokens_of, parsed, reason_of, tokens_of
from llmlab.engines.remote.servers import Kind
from llmlab.errors import GenerationError
from llmlab.guided import gbnf_text

if TYPE_CHECKING:
    from llmlab.engines.base import Request, Unrendered
    from llmlab.guided import Guide
    from llmlab.types import Message, SamplingParams


def path_of(request: Request) -> str:
    """The route of a request."""
    assert request.unrendered is not None
    return "/completions" if request.unrendered.text is not None else "/chat/completions"


def body_of(request: Request, kind: Kind, model: str, *, newer_limit: bool = False) -> dict[str, Any]:
    """The body of a request.

    Args:
        request: what was asked.
        kind: the server.
        model: the model's id there.
        newer_limit: it takes `max_completion_tokens` only.
    """
    asked, params = request.unrendered, request.params
    assert asked is not None
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    body |= sampling_fields(params, kind)
    if newer_limit and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if asked.text is not None:
        body["prompt"] = asked.text
        if params.logprobs is not None:
            body["logprobs"] = params.logprobs
    else:
        body |= _chat(asked, kind, request.begun)
        if params.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": params.logprobs}
    if kind.token_ids:
        body["return_token_ids"] = True
    if request.guide is not None:
        body |= guide_fields(request.guide, kind)
    return body


def sampling_fields(params: SamplingParams, kind: Kind) -> dict[str, Any]:
    """The sampling params that are set, under the server's names."""
    found: dict[str, Any] = {}
    for name, there in kind.fields.items():
        value = getattr(params, name)
        unset = value is None or value is False or value == ()  # 0 is a value
        if unset or (name.startswith(("dry_", "xtc_")) and not _on(params, name)):
            continue
        if name == "logit_bias":
            value = {str(token): bias for token, bias in value.items()}
        found[there] = list(value) if isinstance(value, tuple) else value
    if "repeat_penalty" in found and kind.name == "llama-server":
        found["repeat_last_n"] = -1  # its default window is 64 tokens
    return found


def _on(params: SamplingParams, name: str) -> bool:
    return bool(params.dry_multiplier if name.startswith("dry_") else params.xtc_probability)


def messages_of(asked: Unrendered, begun: str = "") -> list[dict[str, Any]]:
    """The conversation as OpenAI has it, with the answer that was begun as its last message."""
    turns = [_message(message) for message in asked.messages]
    return [*turns, {"role": "assistant", "content": begun}] if begun else turns


def _message(message: Message) -> dict[str, Any]:
    turn = message.as_openai()
    if message.role == "assistant" and message.tool_calls and not message.content:
        turn["content"] = None
    return turn


def _chat(asked: Unrendered, kind: Kind, begun: str) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": messages_of(asked, begun if kind.prefix != "field" else "")}
    if begun and kind.prefix == "field":
        body["prefix"] = begun
    if begun and kind.prefix == "flags":
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if asked.tools:
        body["tools"] = [dict(one) for one in asked.tools]
        body["tool_choice"] = _choice(asked.tool_choice)
    return body | template_fields(asked, kind)


def template_fields(asked: Unrendered, kind: Kind) -> dict[str, Any]:
    """What a request sets in the chat template, under the server's names."""
    body: dict[str, Any] = {}
    variables = dict(asked.variables)
    think = asked.think
    if think is not None and kind.thinking == "think":
        body["think"] = think
    elif isinstance(think, str):
        body["reasoning_effort"] = think
    elif think is not None and kind.thinking == "template":
        variables.setdefault("enable_thinking", bool(think))
    elif think is False:
        body["reasoning_effort"] = "none"
    if variables:
        body["chat_template_kwargs"] = variables
    return body


def _choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def guide_fields(guide: Guide, kind: Kind) -> dict[str, Any]:
    """The fields of a constraint that the server enforces (`Kind.guided`)."""
    if guide.kind == "json":
        schema = guide.schema if isinstance(guide.schema, Mapping) else json.loads(guide.text)
        if kind.name == "vLLM":
            return {"structured_outputs": {"json": schema}}
        form = {"name": "answer", "schema": schema, "strict": _closed(schema)}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if kind.name == "llama-server":
        if guide.kind == "regex":
            assert guide.tree is not None
            return {"grammar": gbnf_text.of_regex(guide.tree)}
        return {"grammar": gbnf_text.of_choice(guide.choices) if guide.kind == "choice" else guide.source}
    value: Any = list(guide.choices) if guide.kind == "choice" else guide.source or guide.text
    name = guide.kind if guide.kind in ("choice", "regex") else "grammar"
    return {"structured_outputs": {name: value}}


def _closed(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes a schema: all objects closed, and all their properties required."""
    if isinstance(schema, list):
        return all(_closed(one) for one in schema)
    if not isinstance(schema, Mapping):
        return True
    named = schema.get("properties")
    if schema.get("type") == "object" or named:
        closed = schema.get("additionalProperties") is False
        if not closed or set(named or ()) != set(schema.get("required") or ()):
            return False
    return all(_closed(one) for one in schema.values())


async def pieces(lines: AsyncIterator[str]) -> AsyncGenerator[Piece, None]:
    """The pieces of an answer, from the lines of its stream, or of a server that doesn't stream.

    Raises:
        GenerationError: the stream is malformed, has an error, or ends early.
    """
    calls, ended = Calls(), False
    async for line in lines:
        text = line.strip()
        if not text or text.startswith((":", "event:", "id:", "retry:")):
            continue
        for start in ("data:", "error:"):
            text = text.removeprefix(start).strip()
        if text == "[DONE]":
            if not ended:
                yield Piece(calls.text(), reason="stop")
            return
        value = parsed(text if not line.startswith("error:") else json.dumps({"error": text}))
        with form_of(text):
            found = _chunk(value, calls)
        for piece in found:
            ended = ended or piece.reason is not None
            yield piece
    if not ended:
        raise GenerationError("The server closed the connection before the answer ended.")


def _chunk(chunk: Mapping[str, Any], calls: Calls) -> list[Piece]:
    found = []
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        calls.add(delta.get("tool_calls") or ())
        reason = reason_of(choice.get("finish_reason"))
        given = choice.get("logprobs") or {}
        logprobs = tokens_of(given["content"]) if given.get("content") is not None else old_tokens_of(given)
        ids = tuple(int(one) for one in choice.get("token_ids") or ())
        if not ids and logprobs and all(one.token_id >= 0 for one in logprobs):
            ids = tuple(one.token_id for one in logprobs)
        elif len(ids) == len(logprobs):
            logprobs = tuple(
                replace(one, token_id=ids[place]) if one.token_id < 0 else one for place, one in enumerate(logprobs)
            )
        text = delta.get("content") or ""
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if reason is not None:
            text = calls.after(str(text))
        if text or thought or ids or logprobs or reason is not None:
            found.append(Piece(str(text), str(thought), ids, logprobs, reason))
    usage = chunk.get("usage")
    if isinstance(usage, Mapping):
        details = usage.get("prompt_tokens_details") or {}
        written = usage.get("completion_tokens_details") or {}
        found.append(
            Piece(
                prompt_tokens=count_of(usage.get("prompt_tokens")),
                tokens=count_of(usage.get("completion_tokens")),
                cached=count_of(details.get("cached_tokens")),
                thought_tokens=count_of(written.get("reasoning_tokens")) or None,  # servers without a count send 0
            )
        )
    return found
