"""Data sets through models, as jobs that go on after a crash: `llmlab.map`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab._imports import submodules

if TYPE_CHECKING:
    from llmlab.jobs import raydata, result

__all__ = ["raydata", "result"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__, __all__)
