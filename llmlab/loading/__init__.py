"""From a model spec to a load plan: parse, find forms, choose, fetch, plan; switching, pulling and removing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.loading import storage

__all__ = ["storage"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The public modules, imported at first use: `llmlab.loading.storage.show("nano")`."""
        if name in __all__:
            import importlib

            return importlib.import_module(f"llmlab.loading.{name}")
        raise AttributeError(f"module 'llmlab.loading' has no attribute {name!r}")
