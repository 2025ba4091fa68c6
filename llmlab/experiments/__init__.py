"""Experiments: grids of prompts, models, quants, adapters and settings, scored, with statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab._imports import submodules

if TYPE_CHECKING:
    from llmlab.experiments import judges, scorers

__all__ = ["judges", "scorers"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__, __all__)
