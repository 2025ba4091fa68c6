"""Whether a model's files include an image encoder, and a GGUF model's projector."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab.files.jsonfile import read_optional

# Its key in config.json: the first in nearly all models, the others in early Qwen-VL and LLaVA models.
_KEYS = ("vision_config", "visual", "mm_vision_tower", "vision_tower")


def sees(path: Path) -> bool:
    """Whether config.json has a vision part, or a projector (`*mmproj*.gguf`) is next to a GGUF file."""
    if path.is_dir():
        config: Mapping[str, Any] = read_optional(path / "config.json")
        return any(config.get(key) for key in _KEYS)
    return projector(path) is not None


def projector(path: Path) -> Path | None:
    """The projector next to a GGUF model (`*mmproj*.gguf`): the one with the most similar name, F16 before others.

    Args:
        path: the model's file.
    """
    found = [file for file in _projectors(path.parent) if file != path]

    def fits(file: Path) -> tuple[int, bool, str]:
        words = set(re.split(r"[-_. ]", path.stem.lower()))
        own = set(re.split(r"[-_. ]", file.stem.lower()))
        return -len(words & own), "f16" not in own, file.name

    return min(found, key=fits, default=None)


def _projectors(folder: Path) -> tuple[Path, ...]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@functools.lru_cache(maxsize=16)
def _listed(folder: Path, _changed_ns: int) -> tuple[Path, ...]:
    """The projectors in a folder, listed again when it has changed: a load asks four times."""
    return tuple(file for file in folder.glob("*.gguf") if "mmproj" in file.name.lower())
