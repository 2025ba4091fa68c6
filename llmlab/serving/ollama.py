"""Ollama's API: `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`, `/api/ps`, as newline-delimited JSON."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse

from llmlab.serving import fields
from llmlab.serving.answers import Answer, Held, chat_logprobs, pieces, reasoning_of
from llmlab.serving.failures import HttpError
from llmlab.serving.service import Json, Service, Streamed, read_json, to_json
from llmlab.types import Message

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from llmlab.inference.stream import Stream
    from llmlab.model import Model

CHAT, GENERATE = "/api/chat", "/api/generate"
API_VERSION = "0.12.6"
"""The version of Ollama whose API this is: some clients check it."""
_COMMON = ("model", "stream", "format", "options", "keep_alive", "think", "logprobs", "top_logprobs")
_CHAT = (*_COMMON, "messages", "tools")
_GENERATE = (*_COMMON, "prompt", "system", "images", "raw", "suffix", "template", "context")
_SAMPLING = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "typical_p")},
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repetition_penalty",
}
_LOADING = ("num_gpu", "num_thread", "num_batch", "num_keep", "main_gpu", "use_mmap", "use_mlock", "numa", "low_vram")
"""Ollama's options of a load; the model is loaded already."""


async def root(request: Request) -> Response:
    """`/`: what Ollama's clients expect of a running server."""
    del request
    return PlainTextResponse("Ollama is running")


async def version(request: Request) -> Response:
    """`/api/version`."""
    del request
    return Json({"version": API_VERSION})


def _entry(model: Model) -> dict[str, Any]:
    size = model.memory().weights
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _now(),
        "size": size,
        "digest": "",
        "details": _details(model),
    }


def _details(model: Model) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.source.format,
        "family": model.facts.architecture,
        "families": [model.facts.architecture],
        "parameter_size": f"{model.facts.parameters / 1e6:.1f}M",
        "quantization_level": model.quant,
    }


async def tags(request: Request) -> Response:
    """`/api/tags`: the loaded models, and `model:adapter` for each adapter."""
    service: Service = request.app.state.service
    found = []
    for model in service.lab.models.values():
        entry = _entry(model)
        names = [model.name, *(f"{model.name}:{adapter}" for adapter in model.adapters)]
        found += [entry | {"name": name, "model": name} for name in names]
    return Json({"models": found})


async def ps(request: Request) -> Response:
    """`/api/ps`: the loaded models with their memory."""
    service: Service = request.app.state.service
    found = []
    for model in service.lab.models.values():
        memory = model.memory()
        total = memory.weights + memory.kv_cache
        on_gpu = 0 if memory.device == "CPU" else total
        more = {"size": total, "size_vram": on_gpu, "context_length": model.facts.context_length}
        found.append(_entry(model) | more | {"expires_at": "9999-12-31T23:59:59Z"})
    return Json({"models": found})


async def show(request: Request) -> Response:
    """`/api/show`: a model's facts."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, ("model", "name", "verbose", "system", "template", "options"))
    model, _ = service.find(body.get("model") or body.get("name"))
    facts, kind = model.facts, model.facts.architecture
    able = ["completion", *(["tools"] if _has_tools(model) else []), *(["vision"] if facts.sees else [])]
    return Json(
        {
            "modelfile": f"FROM {model.source.spec}",
            "parameters": "",
            "template": facts.chat_template or "",
            "details": _details(model),
            "model_info": {
                "general.architecture": kind,
                "general.parameter_count": facts.parameters,
                f"{kind}.context_length": facts.trained_context,
                f"{kind}.vocab_size": facts.vocab_size,
            },
            "capabilities": able,
            "modified_at": _now(),
        }
    )


def _has_tools(model: Model) -> bool:
    return "tools" in (model.facts.chat_template or "")


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _options(service: Service, body: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
    """The model, and the options that both routes share."""
    model, options = service.find(body.get("model"))
    given = fields.mapping(body.get("options") or {}, "options")
    for name, value in given.items():
        if value is None:
            continue
        if name in _SAMPLING:
            fields.put(options, _SAMPLING[name], value)
        elif name == "num_ctx":
            if fields.whole(value, name, 1, 2**31) > model.facts.context_length:
                raise HttpError(
                    400,
                    f"num_ctx {value:,} is more than the context of {model.facts.context_length:,} tokens that "
                    f"{model.name} was loaded with.",
                )
        elif name == "num_predict":
            limit = fields.whole(value, name, -2, 2**31)
            if limit > 0:
                options["max_tokens"] = limit
        elif name not in (*_LOADING, "repeat_last_n"):
            fields.check_names({name: value}, (*_SAMPLING, "num_ctx", "num_predict"))
    options.setdefault("max_tokens", model.facts.context_length)
    form = body.get("format")
    if form == "json":
        options["schema"] = {"type": "object"}
    elif form:
        options["schema"] = dict(fields.mapping(form, "format"))
    fields.put(options, "think", body.get("think"))
    if fields.flag(body.get("logprobs"), "logprobs"):
        options["logprobs"] = fields.whole(body.get("top_logprobs") or 0, "top_logprobs", 0, 100)
    return model, options


def _images(value: Any) -> tuple[bytes, ...]:
    try:
        return tuple(base64.b64decode(one, validate=True) for one in value or ())
    except (binascii.Error, TypeError, ValueError):
        raise HttpError(400, "images must be a list of base64 texts.") from None


def _messages(messages: list[Any]) -> list[Message]:
    found: list[Message] = []
    names: list[str] = []
    for one in messages:
        value = dict(fields.mapping(one, "a message"))
        images = _images(value.pop("images", None))
        if value.get("role") == "tool":
            value["name"] = value.pop("tool_name", None) or value.get("name") or (names.pop(0) if names else None)
        for call in fields.listed(value.get("tool_calls"), "tool_calls"):
            function = fields.mapping(fields.mapping(call, "tool_calls").get("function"), "function")
            names.append(str(function.get("name")))
        if value.get("content") is None:
            value["content"] = ""
        made = Message.of(value)
        found.append(replace(made, images=images))
    return found


async def chat(request: Request) -> Response:
    """`/api/chat`."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, _CHAT)
    model, options = _options(service, body)
    messages = _messages(fields.listed(body.get("messages"), "messages"))
    if not messages:
        return Json(_empty(body, model, {"message": {"role": "assistant", "content": ""}}))
    options |= fields.tool_options(body.get("tools"), None)

    def part(text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thought:
            message["thinking"] = thought
        if calls:
            message["tool_calls"] = calls
        return {"message": message}

    return await _answer(request, service, body, model, lambda: model.stream(messages, **options), CHAT, part)


async def generate(request: Request) -> Response:
    """`/api/generate`."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, _GENERATE)
    for name in ("suffix", "template", "context"):
        if body.get(name):
            raise HttpError(400, f"{name} isn't supported.")
    model, options = _options(service, body)
    prompt = body.get("prompt") or ""
    if not isinstance(prompt, str):
        raise HttpError(400, f"prompt must be text, got {prompt!r:.60}.")
    images = _images(body.get("images"))
    if not prompt and not images:  # how clients load a model
        return Json(_empty(body, model, {"response": ""}))
    raw = fields.flag(body.get("raw"), "raw") or model.facts.chat_template is None
    asked: Any = prompt if raw else [Message("user", prompt, images=images)]
    more = {"system": body["system"]} if body.get("system") and not raw else {}

    def part(text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        del calls
        return {"response": text, **({"thinking": thought} if thought else {})}

    def begin() -> Stream:
        return model.stream(asked, raw=raw, **more, **options)

    return await _answer(request, service, body, model, begin, GENERATE, part)


def _empty(body: Mapping[str, Any], model: Model, part: dict[str, Any]) -> dict[str, Any]:
    return {"model": body.get("model") or model.name, "created_at": _now(), **part, "done": True, "done_reason": "load"}


async def _answer(
    request: Request,
    service: Service,
    body: Mapping[str, Any],
    model: Model,
    begin: Callable[[], Stream],
    route: str,
    part: Callable[[str, str, list[dict[str, Any]]], dict[str, Any]],
) -> Response:
    started = time.perf_counter()
    label = body.get("model") or model.name
    stream = await service.start(begin)

    def end(answer: Answer) -> dict[str, Any]:
        done = answer.completion
        first = done.timings.ttft_s or 0.0
        return {
            "done": True,
            "done_reason": "length" if answer.reason() == "length" else "stop",
            "total_duration": _ns(time.perf_counter() - started),
            "load_duration": 0,
            "prompt_eval_count": done.usage.prompt_tokens,
            "prompt_eval_duration": _ns(first),
            "eval_count": done.usage.completion_tokens,
            "eval_duration": _ns(done.timings.decode_s),
        }

    def line(parts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        return {"model": label, "created_at": _now(), **parts, **more}

    def calls(answer: Answer) -> list[dict[str, Any]]:
        return [{"function": {"name": one.name, "arguments": dict(one.arguments)}} for one in answer.calls]

    if body.get("stream") is False:
        answer = Answer.of(model, await service.result(request, stream, route))
        tokens = answer.completion.logprobs
        more = {"logprobs": chat_logprobs(tokens)} if tokens is not None else {}
        shown = part(answer.texts[0], reasoning_of(answer.completion), calls(answer))
        return Json(line(shown, end(answer) | more))

    async def lines() -> AsyncIterator[bytes]:
        held = Held(tools=bool(body.get("tools")))
        async for chunk, text in pieces(stream, held):
            thought = getattr(chunk, "reasoning", "")
            more = {"logprobs": chat_logprobs(chunk.logprobs)} if chunk.logprobs else {}
            if text or thought or more:
                yield _line(line(part(text, thought, []), {**more, "done": False}))
        answer = Answer.of(model, await service.work(lambda: service.finish(stream, route)))
        rest, made = held.rest(answer.texts[0]), calls(answer)
        if rest or made:
            yield _line(line(part(rest, "", made), {"done": False}))
        yield _line(line(part("", "", []), end(answer)))

    return Streamed(service, stream, lines(), route=route, failed=_line, media_type="application/x-ndjson")


def _line(value: Mapping[str, Any]) -> bytes:
    return to_json(value) + b"\n"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
