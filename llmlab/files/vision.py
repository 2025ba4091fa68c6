"""Whether a model's files include an image encoder."""

from __future__ import annotations

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
    return any("mmproj" in file.name.lower() for file in path.parent.glob("*.gguf") if file != path)
