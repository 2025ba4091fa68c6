"""Recommends an engine and a quant for a model and a machine: `llmlab.advise` and `%llm advise`."""

from __future__ import annotations

from llmlab.advising.advice import Advice, Reason, Use
from llmlab.advising.advise import advise
from llmlab.advising.machine import Machine
from llmlab.advising.needs import NEEDS

__all__ = ["NEEDS", "Advice", "Machine", "Reason", "Use", "advise"]
