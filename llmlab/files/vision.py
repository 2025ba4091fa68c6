"""Whether a model's files have a part that reads images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab.files.jsonfile import read_optional

# What config.json calls it: nearly all models the first, Qwen-VL and LLaVA of old the others.
_KEYS = ("vision_config", "visual", "mm_vision_tower", "vision_tower")


def sees(path: Path) -> bool:
    """Read off the files: a vision part in config.json, or a projector (`*mmproj*.gguf`) beside a GGUF file."""
    if path.is_dir():
        config: Mapping[str, Any] = read_optional(path / "config.json")
        return any(config.get(key) for key in _KEYS)
    return any("mmproj" in file.name.lower() for file in path.parent.glob("*.gguf") if file != path)
