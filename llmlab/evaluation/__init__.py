"""Benchmarks of others: lm-evaluation-harness and Inspect on models in this process."""

from __future__ import annotations

from llmlab.evaluation.results import Contrast, Evaluation, Score
from llmlab.evaluation.run import evaluate

__all__ = ["Contrast", "Evaluation", "Score", "evaluate"]
