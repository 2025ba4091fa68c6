"""Measurements of this machine that are kept in the cache, one small JSON file each."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmlab import config


def read(kind: str, key: tuple[object, ...]) -> dict[str, Any]:
    """What `write` kept under the same key; empty if there is nothing, or the file is damaged."""
    try:
        found = json.loads(_path(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(kind: str, key: tuple[object, ...], values: dict[str, Any]) -> None:
    """Keep a measurement. Without a writable cache nothing is kept.

    Args:
        kind: what was measured: the beginning of the file's name.
        key: everything that the result depends on.
        values: the result, as JSON types.
    """
    with suppress(OSError):
        path = _path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{time.monotonic_ns()}.part")
        part.write_text(json.dumps(values), encoding="utf-8")
        part.replace(path)


def _path(kind: str, key: tuple[object, ...]) -> Path:
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return _folder() / f"{kind}-{name}.json"


def _folder() -> Path:
    return config.cache_dir() / "measured"
