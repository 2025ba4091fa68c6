"""Recommends an engine and a quant for a model and a machine: `llmlab.advise` and `%llm advise`."""

from __future__ import annotations

from llmlab.advice.choice import advise
from llmlab.advice.machine import Machine
from llmlab.advice.preview import DryRun, dry_run
from llmlab.advice.requirements import NEEDS
from llmlab.advice.result import Advice, Reason, Use

__all__ = ["NEEDS", "Advice", "DryRun", "Machine", "Reason", "Use", "advise", "dry_run"]
