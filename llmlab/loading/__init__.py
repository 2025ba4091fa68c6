"""From a model spec to a load plan: parse, find forms, choose, fetch, plan; switching, pulling and removing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab._imports import submodules

if TYPE_CHECKING:
    from llmlab.loading import storage

__all__ = ["storage"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__, __all__)
