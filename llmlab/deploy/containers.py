"""Docker compose and Podman quadlet: a server in a container, with the model's folders mounted read-only."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from llmlab.deploy import ollama
from llmlab.deploy.places import Places, mounted
from llmlab.deploy.servers import OLLAMA, Server
from llmlab.deploy.snapshot import Snapshot
from llmlab.errors import UnsupportedError

_START_S = 600
_MODELFILE = "Modelfile"


def compose(servers: list[Server], snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """A compose file with a service per server; all but the first are profiles of their own.

    Args:
        servers: the servers that can serve the model.
        snapshot: the model.
        folder: the export's folder.
    """
    places = mounted(snapshot, folder)
    services: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    for place, server in enumerate(servers):
        made = {server.name: _service(server, snapshot, places)}
        if server is OLLAMA:
            made["ollama-create"] = _creation(snapshot, places)
            volumes["ollama"] = None
        for name, service in made.items():
            services[name] = _escaped(service) | ({"profiles": [server.name]} if place else {})
    return {"name": f"llmlab-{slug(snapshot.name)}", "services": services} | ({"volumes": volumes} if volumes else {})


def _escaped(value: Any) -> Any:
    """A value with every dollar sign doubled: compose replaces variables in all texts."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {name: _escaped(one) for name, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value


def _service(server: Server, snapshot: Snapshot, places: Places) -> dict[str, Any]:
    first, *rest = server.command(snapshot, places)
    service: dict[str, Any] = {"image": server.image(snapshot)}
    if server.format == "safetensors":  # older images have another entrypoint
        service["entrypoint"] = [first, rest.pop(0)]
    if server is not OLLAMA:
        service["command"] = [*rest, "--host", "0.0.0.0", "--port", str(server.port)]  # noqa: S104 - inside the container
    # A name without a value is taken from the environment at the start: no key is written here.
    secrets = [server.key] if server.key else []
    service["environment"] = [*(f"{name}={value}" for name, value in server.environment(snapshot).items()), *secrets]
    if not service["environment"]:
        del service["environment"]
    service |= {
        "ports": [f"127.0.0.1:{server.port}:{server.port}"],
        "volumes": [*_volumes(places), *(["ollama:/root/.ollama"] if server is OLLAMA else [])],
        "healthcheck": {
            "test": ["CMD", *server.probe],
            "interval": "10s",
            "timeout": "10s",
            "retries": 5,
            "start_period": f"{_START_S}s",
        },
        "restart": "unless-stopped",
    }
    if server.format == "safetensors":
        service["ipc"] = "host"  # shared memory between its processes
    if snapshot.gpus:
        devices = [{"driver": "nvidia", "count": snapshot.gpus, "capabilities": ["gpu"]}]
        service["deploy"] = {"resources": {"reservations": {"devices": devices}}}
    return service


def _creation(snapshot: Snapshot, places: Places) -> dict[str, Any]:
    """The service that makes the model in Ollama, once it is up, and ends."""
    return {
        "image": OLLAMA.image(snapshot),
        "entrypoint": ollama.create(snapshot, places.of(places.folder / _MODELFILE)),
        "environment": [f"OLLAMA_HOST=http://ollama:{OLLAMA.port}"],
        "volumes": _volumes(places),
        "depends_on": {"ollama": {"condition": "service_healthy"}},
        "restart": "no",
    }


def _volumes(places: Places) -> list[dict[str, Any]]:
    # The short form, HOST:INSIDE, can't have a colon in a path, and makes an empty folder of one that isn't there.
    bind = {"create_host_path": False}
    return [
        {"type": "bind", "source": str(one.host), "target": one.inside, "read_only": True, "bind": dict(bind)}
        for one in places.mounts
    ]


def quadlet(server: Server, snapshot: Snapshot, folder: Path) -> str:
    """A `.container` unit for Podman's systemd generator.

    Args:
        server: the server.
        snapshot: the model.
        folder: the export's folder.

    Raises:
        UnsupportedError: a path has a colon, which its form of a volume can't have.
    """
    places = mounted(snapshot, folder)
    for one in places.mounts:
        if ":" in str(one.host):
            raise UnsupportedError(
                f"A quadlet can't mount {one.host}: the path has a colon.", "Move it, or export for compose."
            )
    first, *rest = server.command(snapshot, places)
    lines = ["[Unit]", f"Description={_literal(snapshot.name)} ({snapshot.quant}) in {server.name}", ""]
    lines += ["[Container]", f"Image={server.image(snapshot)}", f"ContainerName=llmlab-{slug(snapshot.name)}"]
    if server.format == "safetensors":
        lines.append(f"Entrypoint={json.dumps([first, rest.pop(0)])}")
        lines.append("PodmanArgs=--ipc=host")  # shared memory between its processes
    lines.append(f"Exec={_systemd([*rest, '--host', '0.0.0.0', '--port', str(server.port)])}")  # noqa: S104
    lines.append(f"PublishPort=127.0.0.1:{server.port}:{server.port}")
    lines += [f"Volume={_literal(str(one.host))}:{one.inside}:ro,z" for one in places.mounts]
    lines += [f"Environment={name}={value}" for name, value in server.environment(snapshot).items()]
    if snapshot.gpus:
        lines.append("AddDevice=nvidia.com/gpu=all")
    if server.key:
        lines.append(f"# A key: podman secret create {server.key} FILE, then")
        lines.append(f"# Secret={server.key},type=env,target={server.key}")
    lines += [
        f"HealthCmd={_systemd(list(server.probe))}",
        f"HealthStartPeriod={_START_S}s",
        "",
        "[Service]",
        "Restart=on-failure",
        f"TimeoutStartSec={_START_S + 300}",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _systemd(words: list[str]) -> str:
    """Words of a unit's command line: systemd expands % and $, and reads quotes much as a shell does."""
    return " ".join(_quoted(_literal(word)) for word in words)


def _literal(text: str) -> str:
    return text.replace("%", "%%").replace("$", "$$")


def _quoted(word: str) -> str:
    if word and shlex.quote(word) == word:
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def slug(name: str) -> str:
    """A name that containers and Kubernetes take: lowercase letters, digits and dashes."""
    cleaned = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return cleaned[:40].strip("-") or "model"
