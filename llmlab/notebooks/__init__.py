"""Notebooks run headless, one after the other: their figures, their failures, and nothing left behind."""

from __future__ import annotations

from llmlab.notebooks.failure import Failure
from llmlab.notebooks.results import NotebookRun, Runs
from llmlab.notebooks.run import run_notebooks

__all__ = ["Failure", "NotebookRun", "Runs", "run_notebooks"]
