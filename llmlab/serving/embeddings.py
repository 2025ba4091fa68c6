"""Embeddings and reranking: OpenAI's `/v1/embeddings`, Jina's and Cohere's `/v1/rerank`, Ollama's `/api/embed`."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmlab.serving import fields
from llmlab.serving.answers import new_id
from llmlab.serving.failures import HttpError
from llmlab.serving.service import Json, Service, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.requests import Request
    from starlette.responses import Response

    from llmlab.model import Model

ROUTE, RERANK, OLLAMA = "/v1/embeddings", "/v1/rerank", "/api/embed"
MOST = 2048
"""OpenAI's limit of texts per request."""
_OPENAI = ("model", "input", "encoding_format", "dimensions", "adapter", "pooling", "truncate")
_RERANK = ("model", "query", "documents", "top_n", "return_documents", "adapter", "truncate")
_OLLAMA = ("model", "input", "truncate", "options", "keep_alive", "dimensions")


async def create(request: Request) -> Response:
    """OpenAI's route; with `pooling`, a model that generates text embeds, too."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, _OPENAI)
    model, options = _options(service, body)
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise HttpError(
            400, f"encoding_format must be float or base64, got {form!r:.60}.", "invalid_value", "encoding_format"
        )
    if body.get("pooling") is not None:
        options["pooling"] = body["pooling"]
    texts = _texts(body.get("input"), "input")
    vectors, tokens = await service.work(lambda: (_embed(model, texts, options, body), _count(model, texts)))
    data = [
        {"object": "embedding", "index": place, "embedding": _base64(one) if form == "base64" else one.tolist()}
        for place, one in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Json({"object": "list", "data": data, "model": body.get("model") or model.name, "usage": usage})


async def rerank(request: Request) -> Response:
    """The route of Jina, Cohere, vLLM and llama-server: documents by relevance, the best first."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, _RERANK)
    model, options = _options(service, body)
    query = body.get("query")
    if not isinstance(query, str):
        raise HttpError(400, f"query must be a text, got {query!r:.60}.", "invalid_value", "query")
    given = body.get("documents")
    listed = given if isinstance(given, list) else [given]
    documents = _texts([one.get("text") if isinstance(one, dict) else one for one in listed], "documents")
    top = body.get("top_n")
    count = len(documents) if top is None else fields.whole(top, "top_n", 1, 2**31)
    scores, tokens = await service.work(
        lambda: (model.rerank(query, documents, **options), _count(model, [query, *documents]))
    )
    order = sorted(range(len(documents)), key=lambda place: -float(scores[place]))[:count]
    shown = fields.flag(body.get("return_documents"), "return_documents")
    results = [
        {"index": place, "relevance_score": float(scores[place])}
        | ({"document": {"text": documents[place]}} if shown else {})
        for place in order
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Json({"id": new_id("rerank-"), "model": body.get("model") or model.name, "results": results, "usage": usage})


async def ollama(request: Request) -> Response:
    """Ollama's route. As there, a text that is too long is cut unless `truncate` is false."""
    service: Service = request.app.state.service
    body = await read_json(request)
    fields.check_names(body, _OLLAMA)
    started = time.perf_counter_ns()
    model, options = _options(service, {"truncate": True} | body)
    texts = _texts(body.get("input"), "input")
    vectors, tokens = await service.work(lambda: (_embed(model, texts, options, body), _count(model, texts)))
    return Json(
        {
            "model": body.get("model") or model.name,
            "embeddings": vectors.tolist(),
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": 0,
            "prompt_eval_count": tokens,
        }
    )


def _options(service: Service, body: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
    model, options = service.find(body.get("model"))
    if body.get("adapter") is not None:
        options["adapter"] = body["adapter"]
    if body.get("truncate") is not None:
        options["truncate"] = fields.flag(body["truncate"], "truncate")
    return model, options


def _texts(value: Any, name: str) -> list[str]:
    """One text or a list of texts."""
    each = [value] if isinstance(value, str) else value
    if not isinstance(each, list) or not 1 <= len(each) <= MOST or not all(isinstance(one, str) for one in each):
        raise HttpError(
            400,
            f"{name} must be a text or a list of 1 to {MOST:,} texts (token ids of another tokenizer aren't read).",
            "invalid_value",
            name,
        )
    return each


def _embed(model: Model, texts: list[str], options: Mapping[str, Any], body: Mapping[str, Any]) -> NDArray[np.float32]:
    vectors = model.embed(texts, **options)
    wanted = body.get("dimensions")
    if wanted is not None and wanted != vectors.shape[1]:
        raise HttpError(
            400, f"{model.name} has {vectors.shape[1]} dimensions, not {wanted!r:.20}.", "unsupported", "dimensions"
        )
    return vectors


def _count(model: Model, texts: list[str]) -> int:
    """Tokens of the texts, without the special tokens around each."""
    return sum(model.count_tokens(text) for text in texts)


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
