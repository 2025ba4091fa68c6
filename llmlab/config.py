"""Where llmlab keeps its files, and the few settings that come from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APP = "llmlab"


def cache_dir() -> Path:
    """The folder for what can be made again (converted models, converted adapters).

    `LLMLAB_CACHE` overrides the platform's own place. The folder is made if it isn't there.
    """
    root = os.environ.get("LLMLAB_CACHE")
    path = Path(root) if root else Path(platformdirs.user_cache_dir(APP))
    path.mkdir(parents=True, exist_ok=True)
    return path


def log_dir() -> Path:
    """The folder for engine logs; `LLMLAB_LOGS` overrides the platform's own place. Made if it isn't there."""
    root = os.environ.get("LLMLAB_LOGS")
    path = Path(root) if root else Path(platformdirs.user_log_dir(APP))
    path.mkdir(parents=True, exist_ok=True)
    return path


def data_dir() -> Path:
    """The folder for what the user made and would miss (tuned adapters, merged models).

    `LLMLAB_DATA` overrides the platform's own place. The folder is made if it isn't there.
    """
    root = os.environ.get("LLMLAB_DATA")
    path = Path(root) if root else Path(platformdirs.user_data_dir(APP))
    path.mkdir(parents=True, exist_ok=True)
    return path
