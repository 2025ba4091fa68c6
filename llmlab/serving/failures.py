"""Errors as HTTP responses, in the form that each API's clients read."""

from __future__ import annotations

from typing import Any

from llmlab.errors import (
    BadInputError,
    GenerationError,
    Interrupted,
    LlmLabError,
    UnknownNameError,
    UnloadedError,
    UnsupportedError,
)


class HttpError(Exception):
    """A request that is refused with a status.

    Args:
        status: the HTTP status.
        message: what is wrong, and what to change.
        code: a word for programs, as in OpenAI's API.
        param: the field that is wrong.
    """

    def __init__(self, status: int, message: str, code: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param


class ClientGoneError(Exception):
    """The client closed its connection; its request was cancelled."""


STOPPED = "The generation was stopped: the model was unloaded or switched, or the server is stopping. Ask again."
LOADING = "The models are still being loaded. Ask again."

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}


def http_error(error: BaseException) -> HttpError:
    """The HTTP form of any error."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, UnloadedError):
        return HttpError(503, str(error), "model_unloaded")
    if isinstance(error, Interrupted):
        return HttpError(503, STOPPED, "interrupted")
    if isinstance(error, UnsupportedError):
        return HttpError(400, str(error), "unsupported")
    if isinstance(error, UnknownNameError):
        return HttpError(400, str(error), "unknown_name")
    if isinstance(error, BadInputError):
        too_long = error.message.startswith("The prompt has ")
        return HttpError(400, str(error), "context_length_exceeded" if too_long else "invalid_value")
    if isinstance(error, GenerationError | LlmLabError):
        return HttpError(500, str(error), "engine_error")
    return HttpError(500, f"{type(error).__name__}: {error}", "internal_error")


def error_body(path: str, error: HttpError) -> dict[str, Any]:
    """The body of an error response.

    Args:
        path: the route, which decides the form.
        error: the error.
    """
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    if path.startswith("/api/"):
        return {"error": error.message}
    if path.startswith("/v1/messages"):
        kind = "api_error" if kind == "server_error" else kind
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    kind = "invalid_request_error" if error.status in (404, 413) else kind
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code or None}}
