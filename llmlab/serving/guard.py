"""What a request must pass before its route: the Host and Origin headers, the key, and the size of its body."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmlab.render import units
from llmlab.serving.failures import HttpError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

BODY_LIMIT = 64 * 2**20
"""Most bytes of a request's body; images are sent inside it."""
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]@:/]+))(?::\d{1,5})?")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(value: str) -> str:
    """The name in a Host header, without the port and the brackets of IPv6; "" if it isn't one."""
    found = _HOST.fullmatch(value.strip().lower())
    return (found[1] or found[2]) if found else ""


class Guard:
    """Refuses requests from web pages, from other hosts' names, without the key, or too large.

    A web page that resolves its own name to 127.0.0.1 (DNS rebinding) sends that name as Host; a page that sends a
    request across origins sends its Origin.

    Args:
        app: the routes.
        host: the address that the server listens on.
        key: the key that requests must have; None: none.
        refuse: sends an error response.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, key: str | None, refuse: Callable[[Scope, HttpError], ASGIApp]
    ) -> None:
        self._app = app
        self._names = LOOPBACK_NAMES | {host.lower()} if is_loopback(host) else None
        self._key = key.encode() if key else None
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on."""
        if scope["type"] != "http":
            return
        error = self._check(scope)
        if error is not None:
            await self._refuse(scope, error)(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)

    def _check(self, scope: Scope) -> HttpError | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        several = sum(name.lower() == b"host" for name, _ in scope["headers"]) > 1
        if self._names is not None and (several or host_of(host) not in self._names):
            return HttpError(403, f"This server answers to localhost only, not to the host {host!r:.80}.", "bad_host")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return HttpError(403, f"Requests from web pages are refused (origin {origin!r:.80}).", "bad_origin")
        if self._key is not None and scope["path"] != "/health" and not self._has_key(headers):
            return HttpError(
                401, "The key is missing or wrong. Send it as Authorization: Bearer KEY.", "invalid_api_key"
            )
        if int(headers.get("content-length") or 0) > BODY_LIMIT:
            return _too_large()
        return None

    def _has_key(self, headers: dict[str, str]) -> bool:
        assert self._key is not None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._key)


def _too_large() -> HttpError:
    return HttpError(413, f"The request is larger than {units.size(BODY_LIMIT)}.", "request_too_large")


def _limited(receive: Receive) -> Receive:
    """The body's parts, counted: a chunked body has no length up front."""
    size = 0

    async def counted() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_LIMIT:
            raise _too_large()
        return message

    return counted
