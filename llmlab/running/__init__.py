"""Runs notebooks headless, one after the other, and collects their records and failures."""

from __future__ import annotations

from llmlab.running.failure import Failure
from llmlab.running.results import NotebookRun, Runs
from llmlab.running.run import run_notebooks

__all__ = ["Failure", "NotebookRun", "Runs", "run_notebooks"]
