"""Votes as ratings: what the arena and an experiment's grid show of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from llmlab.statistics import Vote, elo


def rows(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """Elo ratings as rows for a front end, best first: name, rating, low and high (None from too few votes), votes."""
    return [
        {"name": name, "rating": round(one.value), "low": _round(one.low), "high": _round(one.high), "votes": one.n}
        for name, one in elo(list(votes)).items()
    ]


def vote_of(ballot: Mapping[str, Any]) -> Vote:
    """A ballot of an arena; that all answers are bad counts as a tie, as in Chatbot Arena."""
    return Vote(tuple(ballot["columns"]), ballot["column"])


def line(rated: Iterable[Mapping[str, Any]]) -> str:
    """The ratings in one line."""
    shown = []
    for one in rated:
        interval = f" [{one['low']}, {one['high']}]" if one["low"] is not None else ""
        shown.append(f"{one['name']} {one['rating']}{interval}")
    return f"Elo: {', '.join(shown)}" if shown else ""


def _round(value: float) -> int | None:
    return None if math.isnan(value) else round(value)
