"""Which server it is, which models it has, and what it says about one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmlab.engines.remote import servers
from llmlab.engines.remote.client import Client
from llmlab.engines.remote.servers import Kind
from llmlab.errors import BadInputError, GenerationError, LoadError, unknown

_OWNERS = {"llmlab": servers.LLMLAB, "vllm": servers.VLLM, "llamacpp": servers.LLAMA_SERVER}
DEFAULT_CONTEXT = 8192
"""Ollama's models that aren't running get this context, or the one that they were trained with if it is shorter."""
ASSUMED_CONTEXT = 131_072
"""For servers that don't report a context."""


@dataclass(frozen=True, slots=True)
class Found:
    """A server and a model of it.

    Attributes:
        kind: the server.
        version: as it reports it; "" if it doesn't.
        model: the model's id.
        context: tokens of a request and its answer; None: not reported.
        trained: the context that the model was trained with; 0: not reported.
        template: the chat template, if the server shows it and it is Jinja.
        architecture, parameters, quant: of the model; empty where not reported.
        vision: whether it sees images; None: not reported.
        defaults: the server's own sampling defaults, if reported.
        tokenizes: it has a route for token ids.
        vocab: size of the vocabulary; 0: not reported.
        more: other facts, for `%llm show`.
    """

    kind: Kind
    version: str
    model: str
    context: int | None = None
    trained: int = 0
    template: str | None = None
    architecture: str = ""
    parameters: int = 0
    quant: str = ""
    vision: bool | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tokenizes: bool = False
    vocab: int = 0
    more: Mapping[str, str] = field(default_factory=dict)


async def find(client: Client, model: str | None, context: int | None) -> Found:
    """Look at a server.

    Args:
        client: the connection.
        model: the id that was asked for; None: the only one.
        context: the context length that was asked for.

    Raises:
        LoadError: it has neither API.
        UnknownNameError: it has no such model.
        BadInputError: it has several models, and none was named.
        GenerationError: it can't be reached.
    """
    listed = _ids(await client.get(f"{client.address.api}/models", needed=True))
    rows = listed or {}
    owners = {str(row.get("owned_by", "")).lower() for row in rows.values()}
    kind, version = await _kind(client, owners)
    if kind is servers.OLLAMA:
        rows = _tags(await client.get(f"{client.address.root}/api/tags"))
    elif listed is None:
        raise LoadError(
            f"{client.address.root} is no server of OpenAI's or Ollama's API: it has no {client.address.api}/models.",
            "Give the address up to /v1.",
        )
    chosen = _choose(list(rows), model, client)
    if kind is servers.OLLAMA:
        return await _of_ollama(client, chosen, version, context)
    row = rows.get(chosen, {})
    found = {
        servers.LLMLAB: _of_llmlab,
        servers.VLLM: _of_vllm,
        servers.LLAMA_SERVER: _of_llama_server,
    }.get(kind)
    if found is not None:
        return await found(client, chosen, version, row)
    known = row.get("max_context_length") or row.get("context_length") or row.get("context_window")
    return Found(kind, version, chosen, known if isinstance(known, int) else None)


def _ids(answer: Any) -> dict[str, dict[str, Any]] | None:
    """The models by id, in OpenAI's form; None if it is something else."""
    data = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(data, list):
        return None
    return {str(row["id"]): row for row in data if isinstance(row, dict) and row.get("id")}


def _tags(answer: Any) -> dict[str, dict[str, Any]]:
    data = answer.get("models") if isinstance(answer, dict) else None
    return {str(row.get("model") or row.get("name")): row for row in data or () if isinstance(row, dict)}


async def _kind(client: Client, owners: set[str]) -> tuple[Kind, str]:
    root = client.address.root
    for owner, kind in _OWNERS.items():
        if owner in owners:
            answer = await client.get(f"{root}/version") if kind is not servers.LLAMA_SERVER else None
            return kind, str(answer.get("version", "")) if isinstance(answer, dict) else ""
    if not client.address.local and client.key.name is not None and not client.address.api.endswith("/v1"):
        return servers.OPENAI, ""
    answer = await _quiet(client, f"{root}/api/version")
    if isinstance(answer, dict) and answer.get("version"):
        return servers.OLLAMA, str(answer["version"])
    answer = await _quiet(client, f"{root}/props")
    if isinstance(answer, dict) and "default_generation_settings" in answer:
        return servers.LLAMA_SERVER, str(answer.get("build_info", ""))
    answer = await _quiet(client, f"{root}/api/v0/models")
    if _ids(answer):
        return servers.LM_STUDIO, ""
    answer = await _quiet(client, f"{root}/info")
    if isinstance(answer, dict) and "model_id" in answer and "max_total_tokens" in answer:
        return servers.TGI, str(answer.get("version", ""))
    return servers.OPENAI, ""


async def _quiet(client: Client, url: str) -> Any:
    """An answer of a route that may not exist: a cloud's gateway refuses unknown routes in its own ways."""
    try:
        return await client.get(url)
    except GenerationError:
        return None


def _choose(ids: list[str], model: str | None, client: Client) -> str:
    if model is None:
        plain = [one for one in ids if ":" not in one or one.rpartition(":")[0] not in ids]  # without adapters
        if len(plain) == 1:
            return plain[0]
        if not plain:
            raise BadInputError(f"The server at {client.address.host} lists no model.", "Name one: --model ID.")
        raise BadInputError(
            f"The server at {client.address.host} has {len(plain)} models.",
            f"Name one: --model ID. It has {', '.join(plain[:12])}{', …' if len(plain) > 12 else ''}.",
        )
    if not ids or model in ids:
        return model
    tagged = f"{model}:latest"
    if tagged in ids:
        return tagged
    if not client.address.local and client.key.name is not None:
        return model  # a cloud's list isn't complete
    raise unknown("model of this server", model, ids)


async def _of_llmlab(client: Client, model: str, version: str, row: Mapping[str, Any]) -> Found:
    del client
    return Found(
        servers.LLMLAB,
        version,
        model,
        row.get("max_model_len"),
        quant=str(row.get("quant", "")),
        tokenizes=True,
        more={"engine there": str(row.get("engine", ""))},
    )


async def _of_vllm(client: Client, model: str, version: str, row: Mapping[str, Any]) -> Found:
    answer = await client.ask(f"{client.address.root}/tokenize", {"model": model, "prompt": "a"})
    root = str(row.get("root") or "")
    context = row.get("max_model_len")
    return Found(
        servers.VLLM,
        version,
        model,
        context if isinstance(context, int) else None,
        tokenizes=isinstance(answer, dict) and "tokens" in answer,
        more={"files there": root} if root and root != model else {},
    )


async def _of_llama_server(client: Client, model: str, version: str, row: Mapping[str, Any]) -> Found:
    props = await _quiet(client, f"{client.address.root}/props")
    props = props if isinstance(props, dict) else {}
    settings = props.get("default_generation_settings") or {}
    params = settings.get("params") or settings
    meta = row.get("meta") or {}
    modalities = props.get("modalities") or {}
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty")
    context = settings.get("n_ctx") or meta.get("n_ctx")
    found = re.search(r"[-.](I?Q\d\w*|F16|BF16|F32)\b", str(props.get("model_path", "")), re.IGNORECASE)
    return Found(
        servers.LLAMA_SERVER,
        version or str(props.get("build_info", "")),
        model,
        context if isinstance(context, int) and context > 0 else None,
        trained=int(meta.get("n_ctx_train") or 0),
        template=props.get("chat_template") or None,
        parameters=int(meta.get("n_params") or 0),
        quant=str(meta.get("ftype") or (found[1].upper() if found else "")),
        vision=bool(modalities.get("vision")) if modalities else None,
        defaults={name: params[name] for name in names if name in params},
        tokenizes=True,
        vocab=int(meta.get("n_vocab") or 0),
    )


async def _of_ollama(client: Client, model: str, version: str, context: int | None) -> Found:
    shown = await client.ask(f"{client.address.root}/api/show", {"model": model})
    shown = shown if isinstance(shown, dict) else {}
    details, info = shown.get("details") or {}, shown.get("model_info") or {}
    running = _tags(await client.get(f"{client.address.root}/api/ps")).get(model, {})
    trained = next((int(v) for k, v in info.items() if k.endswith(".context_length") and isinstance(v, int)), 0)
    own = dict(
        line.split(None, 1) for line in str(shown.get("parameters") or "").splitlines() if len(line.split(None, 1)) == 2
    )
    if context is None and str(own.get("num_ctx", "")).strip().isdigit():
        context = int(own["num_ctx"])
    if context is None:
        loaded = running.get("context_length")
        context = loaded if isinstance(loaded, int) and loaded > 0 else min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    able = shown.get("capabilities")
    return Found(
        servers.OLLAMA,
        version,
        model,
        context,
        trained=trained,
        architecture=str(details.get("family", "")),
        parameters=int(info.get("general.parameter_count") or 0),
        quant=str(details.get("quantization_level", "")),
        vision="vision" in able if isinstance(able, list) else None,
        defaults={name: value.strip() for name, value in own.items() if name != "num_ctx"},
        more={"capabilities there": ", ".join(able)} if isinstance(able, list) else {},
    )
