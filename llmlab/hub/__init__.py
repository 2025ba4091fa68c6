"""The hub and its cache: the catalogue, repositories, what is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.hub import cache, catalogue, discover

__all__ = ["cache", "catalogue", "discover"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The public modules, imported at first use: `llmlab.hub.cache.on_disk()`."""
        if name in __all__:
            import importlib

            return importlib.import_module(f"llmlab.hub.{name}")
        raise AttributeError(f"module 'llmlab.hub' has no attribute {name!r}")
