"""Notebooks run headless, one after the other: their figures, their failures, and nothing left behind."""

from __future__ import annotations

from llmlab.running.failure import Failure
from llmlab.running.results import NotebookRun, Runs
from llmlab.running.run import run_notebooks

__all__ = ["Failure", "NotebookRun", "Runs", "run_notebooks"]
