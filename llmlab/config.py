"""Locations of llmlab's files, and their environment variables."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APP = "llmlab"


def cache_dir() -> Path:
    """The folder for files that can be recreated (converted models, converted adapters).

    `LLMLAB_CACHE` overrides the platform's default. Created if missing.
    """
    root = os.environ.get("LLMLAB_CACHE")
    path = Path(root) if root else Path(platformdirs.user_cache_dir(APP))
    path.mkdir(parents=True, exist_ok=True)
    return path


def log_dir() -> Path:
    """The folder for engine logs; `LLMLAB_LOGS` overrides the platform's default. Created if missing."""
    root = os.environ.get("LLMLAB_LOGS")
    path = Path(root) if root else Path(platformdirs.user_log_dir(APP))
    path.mkdir(parents=True, exist_ok=True)
    return path


def data_dir() -> Path:
    """The folder for the user's own results (tuned adapters, merged models, the run log).

    `LLMLAB_DATA` overrides the platform's default. Created if missing.
    """
    root = os.environ.get("LLMLAB_DATA")
    path = Path(root) if root else Path(platformdirs.user_data_dir(APP))
    path.mkdir(parents=True, exist_ok=True)
    return path
