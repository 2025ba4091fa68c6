"""Measurements of models: speed, perplexity and divergence, with tables and plots."""

from __future__ import annotations

from llmlab.measure.prompts import SamePrompt
from llmlab.measure.repeatability import Certificate
from llmlab.measure.similarity import Embedded, embedded
from llmlab.measure.speed import BenchResult, Point, bench

__all__ = ["BenchResult", "Certificate", "Embedded", "Point", "SamePrompt", "bench", "embedded"]
