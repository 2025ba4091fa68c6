"""LoRA fine-tuning: data, the training loop, its result, and merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.training import commands, data

__all__ = ["commands", "data"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import the public modules at first use: `llmlab.training.data.read(rows)`."""
        if name in __all__:
            import importlib

            return importlib.import_module(f"llmlab.training.{name}")
        raise AttributeError(f"module 'llmlab.training' has no attribute {name!r}")
