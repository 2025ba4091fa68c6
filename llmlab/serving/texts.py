"""OpenAI's `/v1/completions`, with `echo` and the prompt's log probabilities; `/tokenize` and `/detokenize`."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.serving import fields
from llmlab.serving.answers import finite, new_id, now, usage
from llmlab.serving.failures import HttpError
from llmlab.serving.service import Json, Service, Streamed, event, follow, read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.types import Completion

ROUTE = "/v1/completions"
KNOWN = (*fields.COMMON, "prompt", "max_tokens", "logprobs", "echo", "best_of", "return_token_ids")
DEFAULT_MAX_TOKENS = 16
"""OpenAI's default of this route."""
MAX_PROMPTS = 1024


@dataclass(frozen=True)
class Token:
    """A token with its log probability; None for a prompt's first token."""

    text: str
    logprob: float | None
    top: Mapping[str, float] | None


@dataclass(frozen=True)
class Asked:
    """A validated request.

    Attributes:
        prompts: texts, or token ids.
        top: how many of the likeliest tokens to list; None: no log probabilities.
        scored: no tokens are to be generated, only the prompt is returned.
        token_ids: also return the ids of the generated tokens, as vLLM does.
    """

    model: Model
    label: str
    prompts: tuple[str | tuple[int, ...], ...]
    options: dict[str, Any]
    echo: bool
    top: int | None
    scored: bool
    stream: bool = False
    stream_usage: bool = False
    token_ids: bool = False
    id: str = field(default_factory=lambda: new_id("cmpl-"))
    created: int = field(default_factory=now)

    @property
    def n(self) -> int:
        """Choices per prompt."""
        return int(self.options.get("n", 1))


def read(service: Service, body: Mapping[str, Any]) -> Asked:
    """Validate a request's body."""
    fields.check_names(body, KNOWN)
    model, named = service.find(body.get("model"))
    options = {**named, **fields.options_of(body)}
    echo = fields.flag(body.get("echo"), "echo")
    limit = body.get("max_tokens")
    limit = DEFAULT_MAX_TOKENS if limit is None else fields.whole(limit, "max_tokens", 0, 2**31)
    if not limit and not echo:
        raise HttpError(400, "max_tokens must be 1 or more without echo.", "invalid_value", "max_tokens")
    options["max_tokens"] = max(limit, 1)
    top = body.get("logprobs")
    if isinstance(top, bool):  # as in chat completions
        top = 0 if top else None
    if top is not None:
        options["logprobs"] = fields.whole(top, "logprobs", 0, 100)
    if body.get("best_of") not in (None, options.get("n", 1)):
        raise HttpError(400, "best_of isn't supported; ask for n choices.", "unsupported", "best_of")
    adapter = options.get("adapter", model.adapter)
    if echo and top is not None and adapter not in (None, "none"):
        raise HttpError(400, "echo with logprobs is for the model without an adapter.", "unsupported", "adapter")
    if echo and top is not None and model.score_note:
        raise HttpError(400, f"echo with logprobs isn't exact here: {model.score_note}.", "unsupported", "logprobs")
    stream = fields.flag(body.get("stream"), "stream")
    if stream and echo and top is not None:
        raise HttpError(400, "echo with logprobs can't be streamed.", "unsupported", "stream")
    more = fields.mapping(body.get("stream_options") or {}, "stream_options")
    prompts = _prompts(body.get("prompt"))
    if stream and len(prompts) > 1:
        raise HttpError(400, "A list of prompts can't be streamed; send one request per prompt.", "unsupported")
    return Asked(
        model,
        body.get("model") or model.name,
        prompts,
        options,
        echo,
        top,
        scored=not limit,
        stream=stream,
        token_ids=fields.flag(body.get("return_token_ids"), "return_token_ids"),
        stream_usage=fields.flag(more.get("include_usage"), "stream_options.include_usage"),
    )


def _prompts(prompt: Any) -> tuple[str | tuple[int, ...], ...]:
    """One prompt or several: a text, token ids, or a list of either."""
    one = isinstance(prompt, str) or (isinstance(prompt, list) and prompt and isinstance(prompt[0], int))
    each = [prompt] if one else prompt
    if not isinstance(each, list) or not each or len(each) > MAX_PROMPTS:
        raise HttpError(
            400,
            f"prompt must be a text, a list of token ids, or 1 to {MAX_PROMPTS} of them.",
            "invalid_value",
            "prompt",
        )
    found: list[str | tuple[int, ...]] = []
    for item in each:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list) and item and all(type(token) is int for token in item):
            found.append(tuple(item))
        else:
            raise HttpError(400, f"A prompt must be a text or token ids, got {item!r:.60}.", "invalid_value", "prompt")
    return tuple(found)


async def completions(request: Request) -> Response:
    """The route."""
    service: Service = request.app.state.service
    asked = read(service, await read_json(request))

    def begin(prompt: Any) -> Stream:
        return asked.model.stream(prompt, raw=True, **asked.options)

    if asked.stream:
        stream = await service.start(lambda: begin(asked.prompts[0]))
        return Streamed(service, stream, _events(service, asked, stream), route=ROUTE)
    streams: list[Stream] = []
    try:
        for prompt in asked.prompts:
            stream = await service.start(functools.partial(begin, prompt))
            streams.append(stream)
        done = [await service.result(request, stream, ROUTE) for stream in streams]
    finally:
        for stream in streams:
            service.drop(stream, ROUTE)
    choices = []
    for place, completion in enumerate(done):
        read_tokens: list[Token] = []
        if asked.echo and asked.top is not None:
            read_tokens = await service.work(functools.partial(prompt_tokens, asked.model, completion, asked.top))
        choices += _choices(asked, completion, place * asked.n, read_tokens)
    counted = usage(done)
    if asked.scored:
        counted |= {"completion_tokens": 0, "total_tokens": counted["prompt_tokens"]}
    return Json({**_head(asked), "choices": choices, "usage": counted})


def _head(asked: Asked) -> dict[str, Any]:
    return {
        "id": asked.id,
        "object": "text_completion",
        "created": asked.created,
        "model": asked.label,
        "system_fingerprint": f"llmlab-{asked.model.engine}-{asked.model.quant}",
    }


def _choices(asked: Asked, completion: Completion, first: int, read_tokens: Sequence[Token]) -> list[dict[str, Any]]:
    found = []
    for index, choice in enumerate(completion.choices):
        text = "" if asked.scored else choice.text
        logprobs = None
        if asked.top is not None:
            written = [] if asked.scored else [_token(one) for one in choice.logprobs or ()]
            logprobs = _logprobs([*read_tokens, *written])
        if asked.echo:
            text = completion.prompt + text
        reason = "length" if asked.scored or choice.finish_reason == "length" else "stop"
        one = {"index": first + index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        found.append({**one, "token_ids": list(choice.token_ids)} if asked.token_ids else one)
    return found


def _token(one: Any) -> Token:
    top = {text: finite(value) for _, text, value in one.top}
    top.setdefault(one.token, finite(one.logprob))
    return Token(one.token, finite(one.logprob), top)


def _logprobs(tokens: Sequence[Token], offset: int = 0) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [token.top for token in tokens],
        "text_offset": offsets,
    }


def prompt_tokens(model: Model, completion: Completion, top: int) -> list[Token]:
    """The tokens of a completion's prompt with their log probabilities, computed by scoring it.

    Args:
        model: the model.
        completion: of a raw prompt.
        top: how many of the likeliest tokens to list for each.
    """
    _imports.load("numpy")
    import numpy as np

    ids = list(completion.prompt_token_ids)
    tokens = [Token(model.token_text(ids[0]), None, None)]
    if len(ids) == 1:
        return tokens
    rows = model.score(ids, adapter=completion.adapter)
    for row, token in zip(rows, ids[1:], strict=True):
        best = np.argpartition(row, -top)[-top:] if top else ()
        listed = {model.token_text(int(one)): finite(row[one]) for one in sorted(best, key=lambda one: -row[one])}
        text = model.token_text(token)
        listed.setdefault(text, finite(row[token]))
        tokens.append(Token(text, finite(row[token]), listed))
    return tokens


async def _events(service: Service, asked: Asked, stream: Stream) -> AsyncIterator[bytes]:
    head = _head(asked)
    if asked.stream_usage:
        head["usage"] = None
    offsets = [0] * asked.n

    def one(index: int, text: str, reason: str | None = None, tokens: Any = (), ids: Any = ()) -> bytes:
        logprobs = None
        if asked.top is not None and tokens:
            made = [_token(token) for token in tokens]
            logprobs = _logprobs(made, offsets[index])
            offsets[index] += sum(len(token.text) for token in made)
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        if asked.token_ids and ids:
            choice["token_ids"] = list(ids)
        return event({**head, "choices": [choice]})

    if asked.echo:
        prompt = stream.partial().prompt
        for index in range(asked.n):
            yield one(index, prompt)
    async for chunks in follow(stream):
        if asked.scored:
            continue
        for chunk in chunks:
            ids = chunk.token_ids if asked.token_ids else ()
            if chunk.text or ids or (asked.top is not None and chunk.logprobs):
                yield one(chunk.index, chunk.text, tokens=chunk.logprobs, ids=ids)
    completion = await service.work(lambda: service.finish(stream, ROUTE))
    for index, choice in enumerate(completion.choices):
        yield one(index, "", "length" if asked.scored or choice.finish_reason == "length" else "stop")
    if asked.stream_usage:
        yield event({**head, "choices": [], "usage": usage([completion])})
    yield b"data: [DONE]\n\n"


async def tokenize(request: Request) -> Response:
    """`/tokenize` of vLLM and llama-server: a text, or a conversation rendered with the chat template."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(
        body,
        (
            *("model", "prompt", "content", "messages", "add_special_tokens", "add_special", "parse_special"),
            *("with_pieces", "return_token_strs", "add_generation_prompt", "tools"),
        ),
    )
    model, _ = service.find(body.get("model"))

    def work() -> dict[str, Any]:
        if body.get("messages") is not None:
            ids = model.tokenize(rendered(model, body))
        else:
            text = fields.first(body, "prompt", "content")
            if not isinstance(text, str):
                raise HttpError(400, "Give a text as prompt (or content), or messages.", "invalid_value", "prompt")
            start = body.get("add_special_tokens", body.get("add_special", "prompt" in body))
            facts = model.facts
            bos = facts.special_tokens.get("bos_token", "") if start and facts.add_bos else ""
            ids = model.tokenize(text if text.startswith(bos) else bos + text)
        found: dict[str, Any] = {"count": len(ids), "max_model_len": model.facts.context_length, "tokens": ids}
        if body.get("return_token_strs"):
            found["token_strs"] = [model.token_text(one) for one in ids]
        if body.get("with_pieces"):
            found["tokens"] = [{"id": one, "piece": model.token_text(one)} for one in ids]
        return found

    return Json(await service.work(work))


async def detokenize(request: Request) -> Response:
    """`/detokenize` of vLLM and llama-server."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, ("model", "tokens"))
    model, _ = service.find(body.get("model"))
    ids = body.get("tokens")
    size = model.facts.vocab_size
    if not isinstance(ids, list) or not all(type(one) is int and 0 <= one < size for one in ids):
        raise HttpError(400, f"tokens must be a list of token ids from 0 to {size - 1}.", "invalid_value", "tokens")
    text = await service.work(lambda: model.detokenize(ids))
    return Json({"prompt": text, "content": text})


async def apply_template(request: Request) -> Response:
    """llama-server's `/apply-template`: a conversation, rendered with the chat template."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, ("model", "messages", "tools", "add_generation_prompt"))
    model, _ = service.find(body.get("model"))
    return Json({"prompt": await service.work(lambda: rendered(model, body))})


def rendered(model: Model, body: Mapping[str, Any]) -> str:
    """A request's conversation as the text that the model reads."""
    if body.get("add_generation_prompt") is False:
        raise HttpError(400, "add_generation_prompt is always true.", "unsupported", "add_generation_prompt")
    made = fields.tool_options(body.get("tools"), None).get("tools", ())
    return model.render(fields.messages_of(body.get("messages")), tools=[tool.schema for tool in made] or None)
