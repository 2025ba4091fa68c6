"""The routes of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from llmlab._version import __version__
from llmlab.errors import LlmLabError
from llmlab.serving import anthropic, chat, embeddings, ollama, responses, texts
from llmlab.serving.answers import now
from llmlab.serving.failures import LOADING, ClientGoneError, HttpError, error_body, http_error
from llmlab.serving.guard import Guard
from llmlab.serving.service import Json, Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

    from llmlab.model import Model
    from llmlab.session import Lab

_CLIENT_GONE = 499
Endpoint = Callable[[Request], Awaitable[Response]]
ROUTES: tuple[tuple[str, str, Endpoint], ...]


async def models(request: Request) -> Response:
    """`/v1/models`: the loaded models, and `model:adapter` for each attached adapter."""
    service: Service = request.app.state.service
    if service.loading and not service.lab.models:
        raise HttpError(503, LOADING, "loading")
    return Json({"object": "list", "data": _listed(service)})


async def one_model(request: Request) -> Response:
    """`/v1/models/{id}`."""
    service: Service = request.app.state.service
    model, named = service.find(request.path_params["name"])
    return Json(_entry(model, named.get("adapter")))


def _listed(service: Service) -> list[dict[str, Any]]:
    return [_entry(model, adapter) for model in service.lab.models.values() for adapter in (None, *model.adapters)]


def _entry(model: Model, adapter: str | None) -> dict[str, Any]:
    return {
        "id": model.name if adapter is None else f"{model.name}:{adapter}",
        "object": "model",
        "created": now() - 1,
        "owned_by": "llmlab",
        "root": model.source.spec,
        "parent": None if adapter is None else model.name,
        "max_model_len": model.facts.context_length,
        "engine": model.engine,
        "quant": model.quant,
    }


async def health(request: Request) -> Response:
    """`/health`: 200 while the server answers, 503 while it loads its models; no key needed."""
    service: Service = request.app.state.service
    if service.loading:
        raise HttpError(503, LOADING, "loading")
    return Json({"status": "ok"})


async def version(request: Request) -> Response:
    """`/version`."""
    del request
    return Json({"version": __version__})


async def metrics(request: Request) -> Response:
    """`/metrics`, in Prometheus' text format."""
    service: Service = request.app.state.service
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


ROUTES = (
    ("GET", "/health", health),
    ("GET", "/version", version),
    ("GET", "/metrics", metrics),
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{name:path}", one_model),
    ("POST", chat.ROUTE, chat.chat_completions),
    ("POST", texts.ROUTE, texts.completions),
    ("POST", responses.ROUTE, responses.create),
    ("POST", anthropic.ROUTE, anthropic.create),
    ("POST", f"{anthropic.ROUTE}/count_tokens", anthropic.count_tokens),
    ("POST", embeddings.ROUTE, embeddings.create),
    ("POST", embeddings.RERANK, embeddings.rerank),
    ("POST", "/rerank", embeddings.rerank),
    ("POST", embeddings.OLLAMA, embeddings.ollama),
    ("POST", "/tokenize", texts.tokenize),
    ("POST", "/detokenize", texts.detokenize),
    ("POST", "/apply-template", texts.apply_template),
    ("GET", "/", ollama.root),
    ("GET", "/api/version", ollama.version),
    ("GET", "/api/tags", ollama.tags),
    ("GET", "/api/ps", ollama.ps),
    ("POST", "/api/show", ollama.show),
    ("POST", ollama.CHAT, ollama.chat),
    ("POST", ollama.GENERATE, ollama.generate),
)
"""Method, path and endpoint of every route."""


def make_app(lab: Lab, *, host: str, key: str | None) -> tuple[ASGIApp, Service]:
    """The ASGI application, and what its routes share.

    Args:
        lab: whose models are served.
        host: the address that the server listens on.
        key: the key that requests must have; None: none.
    """
    service = Service(lab)

    def response(path: str, error: HttpError) -> Response:
        service.metrics.error(error.status)
        return Json(error_body(path, error), status_code=error.status)

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientGoneError):
            return Response(status_code=_CLIENT_GONE)  # not sent: the connection is closed
        if isinstance(error, HTTPException):
            what = f"{request.method} {request.url.path}"
            text = {404: f"There is no route {what:.120}.", 405: f"{what:.120} isn't allowed."}
            found = HttpError(error.status_code, text.get(error.status_code, str(error.detail)), "unknown_route")
            return response(request.url.path, found)
        return response(request.url.path, http_error(error))

    def refuse(scope: Scope, error: HttpError) -> ASGIApp:
        return response(scope["path"], error)

    handlers: Any = dict.fromkeys((ClientGoneError, HttpError, LlmLabError, HTTPException), failed)
    routes = [Route(path, _caught(endpoint), methods=[method]) for method, path, endpoint in ROUTES]
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.service = service
    return Guard(app, host=host, key=key, refuse=refuse), service


def _caught(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose unexpected errors are answers too: Starlette would also raise them in the server's log."""

    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (ClientGoneError, HttpError, LlmLabError, HTTPException):
            raise
        except KeyboardInterrupt as error:  # `Interrupted`: the request was cancelled
            raise http_error(error) from None
        except Exception as error:
            raise http_error(error) from error

    return call
