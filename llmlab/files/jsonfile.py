"""JSON files that may be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_optional(file: Path) -> dict[str, Any]:
    """A file's JSON object; {} where the file isn't there, isn't JSON, or holds something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
