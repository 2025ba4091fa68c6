"""Model files, read from their headers: GGUF, safetensors, configuration, quant tags, and the memory they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab._imports import submodules

if TYPE_CHECKING:
    from llmlab.files import fit, headers, tags

__all__ = ["fit", "headers", "tags"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__, __all__)
