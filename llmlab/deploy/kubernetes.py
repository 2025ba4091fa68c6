"""Kubernetes: a Deployment with its Service, a KServe InferenceService, and Ray Serve's config."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llmlab.deploy import vllm_server
from llmlab.deploy.containers import slug
from llmlab.deploy.places import TEMPLATE, Mount, Places, local
from llmlab.deploy.servers import Server
from llmlab.deploy.snapshot import Snapshot
from llmlab.errors import UnsupportedError

CLAIM = "llmlab-models"
_CHECK_IMAGE = "busybox:1.37"
_RAM_FACTOR = 1.5
_SHARED = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 - inside the pod


def inside(snapshot: Snapshot, folder: Path) -> Places:
    """The paths in a pod: the files of the claim, under the name of their role."""
    wanted = [Mount(_folder(snapshot.path), "/models/model")]
    if snapshot.draft is not None and snapshot.draft.source is not None:
        wanted.append(Mount(_folder(snapshot.draft.source.path.absolute()), "/models/draft"))
    for one in snapshot.loras:  # by its own name: files of different folders may have the same one
        suffix = "" if one.path.is_dir() else one.path.suffix
        wanted.append(Mount(one.path.absolute(), f"/models/adapters/{one.name}{suffix}"))
    return Places(folder.absolute(), (*wanted, Mount(folder.absolute(), "/export")))


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def checksums(snapshot: Snapshot, places: Places) -> str:
    """`sha256sum -c` lines of the files, as the deployment sees them."""
    return "".join(f"{one.sha256}  {places.of(one.path)}\n" for one in snapshot.files)


def objects(server: Server, snapshot: Snapshot, folder: Path) -> list[dict[str, Any]]:
    """A ConfigMap with template and checksums, a Deployment, and a Service inside the cluster.

    Args:
        server: the server.
        snapshot: the model.
        folder: the export's folder.
    """
    name, places = f"llmlab-{slug(snapshot.name)}", inside(snapshot, folder)
    labels = {"app.kubernetes.io/name": name}
    data = {"SHA256SUMS": checksums(snapshot, places)}
    if snapshot.template is not None:
        data[TEMPLATE] = snapshot.template
    pod = {
        "initContainers": [_check(places)],
        "containers": [_container(server, snapshot, places)],
        "volumes": _volumes(server, name),
    }
    deployment = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    ports = [{"name": "http", "port": server.port, "targetPort": "http"}]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data},
        _object("apps/v1", "Deployment", name, labels, deployment),
        _object("v1", "Service", name, labels, {"type": "ClusterIP", "selector": labels, "ports": ports}),
    ]


def kserve(server: Server, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """The same container as a KServe InferenceService; it reads the same ConfigMap.

    Args:
        server: the server.
        snapshot: the model.
        folder: the export's folder.
    """
    name, places = f"llmlab-{slug(snapshot.name)}", inside(snapshot, folder)
    container = _container(server, snapshot, places) | {"name": "kserve-container"}
    container["ports"] = [{"containerPort": server.port, "protocol": "TCP"}]
    container["readinessProbe"] = _probe(server, server.port)
    del container["startupProbe"]
    predictor = {
        "minReplicas": 1,
        "maxReplicas": 1,
        "initContainers": [_check(places)],
        "containers": [container],
        "volumes": _volumes(server, name),
    }
    return _object("serving.kserve.io/v1beta1", "InferenceService", name, {}, {"predictor": predictor})


def _object(version: str, kind: str, name: str, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name} | ({"labels": labels} if labels else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _container(server: Server, snapshot: Snapshot, places: Places) -> dict[str, Any]:
    first, *rest = server.command(snapshot, places)
    command = {"command": [first, rest.pop(0)]} if server.format == "safetensors" else {}
    environment: list[dict[str, Any]] = [
        {"name": key, "value": value} for key, value in server.environment(snapshot).items()
    ]
    if server.key:
        secret = {"name": f"llmlab-{slug(snapshot.name)}", "key": server.key, "optional": True}
        environment.append({"name": server.key, "valueFrom": {"secretKeyRef": secret}})
    words = [*rest, "--host", "0.0.0.0", "--port", str(server.port)]  # noqa: S104 - inside the pod
    return {
        "name": "server",
        "image": server.image(snapshot),
        **command,
        "args": [word.replace("$(", "$$(") for word in words],
        "env": environment,
        "ports": [{"name": "http", "containerPort": server.port}],
        "readinessProbe": _probe(server, "http"),
        "startupProbe": _probe(server, "http") | {"failureThreshold": 90},
        "resources": _resources(snapshot),
        "volumeMounts": [*_mounts(), *(_SHARED if _shares(server) else [])],
    }


def _shares(server: Server) -> bool:
    """Whether its processes share memory, of which a container has 64 MiB by default."""
    return server.format == "safetensors"


def _probe(server: Server, port: str | int) -> dict[str, Any]:
    return {"httpGet": {"path": server.health, "port": port}, "periodSeconds": 10}


def _resources(snapshot: Snapshot) -> dict[str, Any]:
    weights = sum(one.size for one in snapshot.files)
    memory = f"{max(math.ceil((weights * _RAM_FACTOR + snapshot.kv_bytes) / 2**30), 1) + 1}Gi"
    found: dict[str, Any] = {"requests": {"memory": memory}}
    return found | ({"limits": {"nvidia.com/gpu": snapshot.gpus}} if snapshot.gpus else {})


def _check(places: Places) -> dict[str, Any]:
    """A container that fails unless the claim has the very files."""
    return {
        "name": "checksums",
        "image": _CHECK_IMAGE,
        "command": ["sha256sum", "-c", places.of(places.folder / "SHA256SUMS")],
        "volumeMounts": _mounts(),
    }


def _mounts() -> list[dict[str, Any]]:
    return [
        {"name": "models", "mountPath": "/models", "readOnly": True},
        {"name": "export", "mountPath": "/export", "readOnly": True},
    ]


def _volumes(server: Server, name: str) -> list[dict[str, Any]]:
    shared = [{"name": "shm", "emptyDir": {"medium": "Memory"}}] if _shares(server) else []
    return [
        {"name": "models", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}},
        {"name": "export", "configMap": {"name": name}},
        *shared,
    ]


def ray(snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """A Ray Serve config with one LLM application.

    Args:
        snapshot: the model.
        folder: the export's folder.

    Raises:
        UnsupportedError: it has adapters, which Ray Serve reads from a bucket.
    """
    if snapshot.loras:
        names = ", ".join(one.name for one in snapshot.loras)
        raise UnsupportedError(
            f"Ray Serve can't serve {snapshot.name} with its adapters ({names}): it reads adapters from a bucket.",
            "Remove them (%llm lora rm), or merge one into the model: %llm lora merge NAME --as MODEL",
        )
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": snapshot.name, "model_source": str(snapshot.path)},
        "engine_kwargs": vllm_server.engine_arguments(snapshot, local(folder)),
        "deployment_config": {"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}},
    }
    environment = vllm_server.environment(snapshot)
    config["runtime_env"] = {"env_vars": dict(environment)}
    if not snapshot.gpus:
        config["placement_group_config"] = {"bundles": [{"CPU": 1}]}
    application = {
        "name": slug(snapshot.name),
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [config]},
    }
    return {"http_options": {"host": "127.0.0.1", "port": 8000}, "applications": [application]}
