"""A server's address, and its key, which is known only by the name of what holds it."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmlab.errors import BadInputError

if TYPE_CHECKING:
    import httpx

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")
KEYRING = "llmlab"
"""The keyring's service under which a key is looked up by name."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server answers.

    Attributes:
        root: without the API's own path, for routes such as `/health`.
        api: with it, for `/chat/completions`.
    """

    root: str
    api: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Parse an address: `localhost:8000`, `http://localhost:8000/v1`, `https://api.example.com/v1`.

        Raises:
            BadInputError: it isn't one, or it has a user, a password or a query, which may be secret.
        """
        text = url.strip() if isinstance(url, str) else ""
        text = text if "://" in text else f"http://{text}"
        try:
            parts = urlsplit(text)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            fine = False
        if not fine:
            raise BadInputError(
                "The address of a server is http://HOST:PORT or https://HOST.", "For example http://127.0.0.1:8000"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise BadInputError(
                "The address of a server can't have a user, a password or a query.",
                "Put the key into an environment variable and give its name: --key-env VAR.",
            )
        base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        for end in ("/chat/completions", "/completions", "/api/chat", "/api/generate", "/models"):
            base = base.removesuffix(end)
        if re.search(r"/v\d\w*$|/openai$", base):
            return cls(re.sub(r"/v\d\w*$", "", base), base)
        return cls(base, f"{base}/v1")

    @property
    def host(self) -> str:
        """The host's name or address, and the port."""
        return urlsplit(self.root).netloc

    @property
    def local(self) -> bool:
        """It is on this machine."""
        name = urlsplit(self.root).hostname or ""
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"


class Key:
    """The key of a server, read from an environment variable or the keyring for each request, and never kept.

    Args:
        name: the variable's name, or the keyring's user name under the service `llmlab`; None: no key.

    Raises:
        BadInputError: there is no such variable or entry. A value is never repeated: it may be a key.
    """

    def __init__(self, name: str | None) -> None:
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise BadInputError(
                "key_env takes the name of an environment variable, not the key itself.",
                "Set the variable before the kernel starts (or with %env in a cell that isn't saved), and give its "
                "name: --key-env OPENAI_API_KEY.",
            )
        self.name = name
        if name is not None and not self._value():
            raise BadInputError(
                f"There is no key in the environment variable {name}, nor in the keyring under {KEYRING}/{name}.",
                f"Set {name} before the kernel starts, or keep it: keyring set {KEYRING} {name}.",
            )
        self._header()

    def _value(self) -> str:
        if self.name is None:
            return ""
        value = os.environ.get(self.name, "").strip()
        if not value and importlib.util.find_spec("keyring") is not None:
            try:
                value = importlib.import_module("keyring").get_password(KEYRING, self.name) or ""
            except Exception:  # noqa: BLE001 - no keyring service on this machine
                value = ""
        return value

    def _header(self) -> str:
        value = self._value()
        if not value.isprintable():  # h11's error would repeat it
            raise BadInputError(f"The key in {self.name} has a line break or another control character.")
        return f"Bearer {value}"

    def scrubbed(self, text: str) -> str:
        """A text of the server's without the key: servers repeat keys in error messages."""
        value = self._value()
        return text.replace(value, f"[{self.name}]") if len(value) > 3 else text

    def auth(self) -> httpx.Auth:
        """What adds the key to a request."""
        import httpx

        key = self

        class Bearer(httpx.Auth):
            def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
                if key.name is not None:
                    request.headers["Authorization"] = key._header()
                yield request

        return Bearer()

    def __repr__(self) -> str:
        return f"<key in {self.name}>" if self.name is not None else "<no key>"
