"""What models are measured by: speed, perplexity and divergence, and the tables and plots of them."""

from __future__ import annotations

from llmlab.measure.speed import Bench, Point, bench

__all__ = ["Bench", "Point", "bench"]
