"""Model files, read from their headers: GGUF, safetensors, configuration, quant tags, and the memory they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.files import fit, headers, tags

__all__ = ["fit", "headers", "tags"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The public modules, imported at first use: `llmlab.files.tags.names()`."""
        if name in __all__:
            import importlib

            return importlib.import_module(f"llmlab.files.{name}")
        raise AttributeError(f"module 'llmlab.files' has no attribute {name!r}")
