"""Statistics of scores: estimates with intervals, paired tests, corrections for many comparisons."""

from __future__ import annotations

from llmlab.statistics.estimates import Estimate, Spread, averages, mean, median, share, spread
from llmlab.statistics.pairs import LEVEL, Paired, holm, paired
from llmlab.statistics.ratings import Vote, elo
from llmlab.statistics.words import sentence

__all__ = [
    "LEVEL",
    "Estimate",
    "Paired",
    "Spread",
    "Vote",
    "averages",
    "elo",
    "holm",
    "mean",
    "median",
    "paired",
    "sentence",
    "share",
    "spread",
]
