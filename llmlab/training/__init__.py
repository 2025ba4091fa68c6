"""LoRA fine-tuning: data, the training loop, its result, and merging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab._imports import submodules

if TYPE_CHECKING:
    from llmlab.training import commands, data

__all__ = ["commands", "data"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__, __all__)
