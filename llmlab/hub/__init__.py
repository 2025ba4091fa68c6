"""The hub and its cache: the catalogue, repositories, what is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab._imports import submodules

if TYPE_CHECKING:
    from llmlab.hub import cache, catalogue, discover

__all__ = ["cache", "catalogue", "discover"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__, __all__)
