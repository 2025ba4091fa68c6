"""What a recorded answer is an answer to: token ids, params, adapters, constraint, images; and the model."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from llmlab.engines.base import LoraLimits, ModelFacts, Request, Unrendered, mix_key
from llmlab.files.pooling import Embedding
from llmlab.types import Message, SamplingParams

_PLAIN = {field.name: field.default for field in fields(SamplingParams)}
# Files up to this size are hashed completely, larger ones by their first bytes and samples.
_WHOLE = 256 * 2**20
_HEAD, _SAMPLES, _SAMPLE = 2**22, 64, 2**16


def request_of(request: Request) -> dict[str, Any]:
    """A request as JSON data: everything that its answer depends on.

    The seed is left out where it has no effect (temperature 0).
    """
    params = {name: value for name, value in asdict(request.params).items() if value != _PLAIN[name]}
    if request.params.temperature == 0:
        params.pop("seed", None)
    if request.params.logit_bias:
        params["logit_bias"] = {str(token): bias for token, bias in request.params.logit_bias.items()}
    found: dict[str, Any] = {
        "ids": list(request.prompt_ids),
        "params": {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()},
        "adapter": mix_key(request.adapter),
        "guide": f"{request.guide.kind} {request.guide.digest}" if request.guide is not None else "",
        "complete": request.complete,
        "images": [hashlib.sha256(image).hexdigest()[:24] for image in request.images],
        "begun": request.begun,
        "ends": list(request.ends),
    }
    if request.unrendered is not None:
        found |= unrendered_of(request.unrendered)
    return {name: value for name, value in found.items() if value not in ("", [], {}, None, False)}


def _message(message: Message) -> dict[str, Any]:
    own = message.as_dict()
    if message.images:
        own["content"] = [message.content, *(hashlib.sha256(image).hexdigest()[:24] for image in message.images)]
    return own


def unrendered_of(asked: Unrendered) -> dict[str, Any]:
    """A prompt that a server renders, as JSON data."""
    return {
        "messages": [_message(one) for one in asked.messages],
        "text": asked.text,
        "tools": [dict(one) for one in asked.tools],
        "tool_choice": asked.tool_choice,
        "think": asked.think,
        "variables": dict(asked.variables),
    }


def weights_digest(path: Path) -> str:
    """SHA-256 (hex) of a model's weights: a GGUF file, or a folder's safetensors; "" where there are none.

    Files above 256 MiB are hashed by size, their first 4 MiB (the header) and 64 evenly spaced samples of 64 KiB.
    """
    if str(path) == os.devnull:
        return ""
    out = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        size = file.stat().st_size
        out.update(struct.pack("<Q", size))
        with file.open("rb") as handle:
            if size <= _WHOLE:
                out.update(handle.read())
                continue
            out.update(handle.read(_HEAD))
            for number in range(_SAMPLES):
                handle.seek(size * number // _SAMPLES)
                out.update(handle.read(_SAMPLE))
    return out.hexdigest()


def facts_to_json(facts: ModelFacts) -> dict[str, Any]:
    """The facts of a model as JSON data."""
    found = asdict(facts)
    found["defaults"] = {name: value for name, value in found["defaults"].items() if value != _PLAIN[name]}
    return found


def facts_of_json(found: Mapping[str, Any]) -> ModelFacts:
    """The facts of a model from JSON data."""
    own: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    own["defaults"] = SamplingParams(**own["defaults"])
    own["embedding"] = Embedding(**own["embedding"]) if own.get("embedding") else None
    return ModelFacts(**own)


def lora_to_json(limits: LoraLimits) -> dict[str, Any]:
    """What a replay needs of the limits of adapters: how mixes are named, and why there are none."""
    return {"form": limits.form, "mixes": limits.mixes, "refused": limits.refused, "hint": limits.hint}
