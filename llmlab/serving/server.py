"""The server's life: the port, the thread, and the end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, LlmLabError
from llmlab.inference.request import IMPORTS
from llmlab.serving.guard import is_loopback

if TYPE_CHECKING:
    from llmlab.serving.service import Service
    from llmlab.session import Lab

PORT = 8000
OLLAMA_PORT = 11434
HOST = "127.0.0.1"
KEY_VARIABLE = "LLMLAB_SERVE_KEY"
STOP_S = 10.0
"""How long a stop may take."""
_BACKLOG = 1024
# What requests import: here, not at the first request on a background thread.
_REQUEST_IMPORTS = ("jsonschema", "outlines.types.dsl", "llmlab.guided.pytypes", "llmlab.guided.schema")


class Server:
    """The models of a Lab as an HTTP server in this process. Create it with `llmlab.serve` or `%llm serve`.

    Models that are loaded later are served too; switching a quant or an adapter takes effect at the next request.

    Attributes:
        host: the address that it listens on.
        port: its port.

    Example:
        >>> server = llmlab.serve(port=0)
        >>> import httpx
        >>> httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"]
        'nano'
        >>> server.stop()
    """

    def __init__(self, lab: Lab, app: Any, listening: socket.socket, host: str, service: Service) -> None:
        import uvicorn

        from llmlab.serving.connections import HttpServer

        self.host = host
        self.port: int = listening.getsockname()[1]
        self._lab = lab
        self._service = service
        self._socket = listening
        self._lock = threading.Lock()
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",  # errors are answers; the notebook isn't a log
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            backlog=_BACKLOG,
        )
        self._server = HttpServer(config)
        self._thread = threading.Thread(target=self._run, name="llmlab-serve", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.005)
        if not self._server.started:
            raise LlmLabError("The server's thread ended before it accepted requests.")

    def _run(self) -> None:
        # Signals stay the kernel's: uvicorn handles them in the main thread only.
        self._server.run(sockets=[self._socket])

    @property
    def url(self) -> str:
        """The base URL; OpenAI's clients take it with /v1 at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it accepts requests."""
        return self._thread.is_alive() and not self._server.should_exit

    def loaded(self) -> None:
        """End what `start(loading=True)` began: a model that isn't here is unknown from now on, not still loading.

        Example:
            >>> from llmlab.serving import start
            >>> server = start(llmlab.Lab(), port=0, loading=True)
            >>> server.loaded()
            >>> server.stop()
        """
        self._service.loading = False

    def wait(self) -> None:
        """Wait until it is stopped.

        Example:
            >>> import threading
            >>> server = llmlab.serve(port=0)
            >>> threading.Timer(0.1, server.stop).start()
            >>> server.wait()
        """
        while self._thread.is_alive():
            self._thread.join(0.5)

    def stop(self) -> None:
        """Cancel the running requests, close the connections and free the port. A second call is a no-op.

        Example:
            >>> server = llmlab.serve(port=0)
            >>> server.stop()
            >>> server.running
            False
        """
        with self._lock:
            self._server.should_exit = True
            self._service.close()
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                self._server.force_exit = True
                self._thread.join(STOP_S)
            with contextlib.suppress(OSError):
                self._socket.close()
            if self._lab.server is self:
                self._lab.server = None

    def __repr__(self) -> str:
        return f"<Server {self.url}{'' if self.running else ', stopped'}>"


def start(lab: Lab, *, port: int = PORT, host: str = HOST, key: str | None = None, loading: bool = False) -> Server:
    """Serve a Lab's models. See `llmlab.serve`.

    Args:
        lab: the Lab.
        port: the port; 0: any free one.
        host: the address to listen on.
        key: the key that requests must have.
        loading: the models are still being loaded; until `Server.loaded`, `/health` is 503, and so is a missing model.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise BadInputError(f"port must be a whole number from 0 to 65535, got {port!r}.")
    key = key if key is not None else os.environ.get(KEY_VARIABLE) or None
    if not is_loopback(host) and not key:
        raise BadInputError(
            f"Other machines can reach {host}: serving there needs a key.",
            f"Set key=... or {KEY_VARIABLE}, or leave out the host.",
        )
    if key is not None and (not key.isascii() or not key.isprintable() or not key.strip()):
        raise BadInputError("A key must consist of printable ASCII characters.")
    if lab.server is not None:
        raise BadInputError(f"The models are already served at {lab.server.url}.", "Stop it first: %llm serve --stop")
    try:
        _imports.load(*IMPORTS, *_REQUEST_IMPORTS, "prometheus_client", "uvicorn", "llmlab.serving.app")
    except ModuleNotFoundError as error:
        raise LlmLabError(f"Serving needs {error.name}.", "pip install 'llmlab[serve]'") from error
    from llmlab.serving.app import make_app

    listening = _listen(host, port)
    try:
        app, service = make_app(lab, host=host, key=key)
        service.loading = loading
        server = Server(lab, app, listening, host, service)
    except BaseException:
        listening.close()
        raise
    lab.server = server
    return server


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BadInputError(f"Unknown host {host!r}: {error.strerror or error}.") from None
    # localhost may list ::1 first, and clients of "127.0.0.1" would find nothing there.
    family, kind, protocol, _, address = sorted(found, key=lambda one: one[0] != socket.AF_INET)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows it would share a port with another program
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise BadInputError(
                f"Port {port} is taken{_holder(port)}.", f"Take another: --port {port + 1}, or --port 0 for a free one."
            ) from None
        raise BadInputError(f"Can't listen on {host} port {port}: {error.strerror or error}.") from None
    return listening


def _holder(port: int) -> str:
    """Who has a port, as ` by PROGRAM (process N)`; "" if that can't be determined."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                if one.pid == os.getpid():
                    return " by this process"
                return f" by {psutil.Process(one.pid).name()} (process {one.pid})"
    return ""
