"""Measurements of llama.cpp on this machine that are kept in the cache, one small JSON file each."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata as metadata
import json
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab.errors import LoadError
from llmlab.files import jsonfile
from llmlab.machine import hardware


def read(kind: str, key: tuple[object, ...]) -> dict[str, Any]:
    """What `write` kept under the same key; empty if there is nothing, or the file is damaged."""
    try:
        return jsonfile.read(_path(kind, key))
    except LoadError:
        return {}


def write(kind: str, key: tuple[object, ...], values: dict[str, Any]) -> None:
    """Keep a measurement. Without a writable cache nothing is kept.

    Args:
        kind: what was measured: the beginning of the file's name.
        key: what the result depends on, besides the machine and llama.cpp's version.
        values: the result, as JSON types.
    """
    path = _path(kind, key)
    with config.keeping(path), config.replacing(path) as part:
        part.write_text(json.dumps(values), encoding="utf-8")


def _path(kind: str, key: tuple[object, ...]) -> Path:
    name = hashlib.sha256(repr((*_machine(), *key)).encode()).hexdigest()[:16]
    return _folder() / f"{kind}-{name}.json"


@functools.cache
def _machine() -> tuple[str, ...]:
    return hardware.cpu_name(), hardware.describe_device(), metadata.version("llama-cpp-python")


def _folder() -> Path:
    return config.cache_dir() / "measured"
