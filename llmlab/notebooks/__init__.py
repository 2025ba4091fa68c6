"""Runs notebooks headless, one after the other, and collects their records and failures."""

from __future__ import annotations

from llmlab.notebooks.failure import Failure
from llmlab.notebooks.results import NotebookRun, Runs
from llmlab.notebooks.run import run_notebooks

__all__ = ["Failure", "NotebookRun", "Runs", "run_notebooks"]
