"""Which models there are, where their files lie, what their headers say, and whether they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.hub import catalogue, discover, disk, headers, memory, tags

__all__ = ["catalogue", "discover", "disk", "headers", "memory", "tags"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The public modules, imported at first use: `llmlab.hub.tags.names()`."""
        if name in __all__:
            import importlib

            return importlib.import_module(f"llmlab.hub.{name}")
        raise AttributeError(f"module 'llmlab.hub' has no attribute {name!r}")
