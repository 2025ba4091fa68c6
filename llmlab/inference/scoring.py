"""Distributions along many texts: the engine gets several at once, and the caller one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmlab.engines.base import Engine, Mix, Scored

# What one call of the engine takes: other requests of the model wait for it, and its rows are in memory at once.
_TOKENS = 2048
_ROW_BYTES = 2**28


def scored(engine: Engine, texts: Sequence[Scored], mix: Mix | None, vocab_size: int) -> Iterator[Any]:
    """The engine's distributions along each text, in order. Arguments as `Engine.score`; `vocab_size` in tokens."""
    for part in _parts(texts, max(_ROW_BYTES // max(4 * vocab_size, 1), 1)):
        found = engine.score(part, mix)
        # Each matrix is freed as soon as the caller drops it.
        found.reverse()
        while found:
            yield found.pop()


def _parts(texts: Sequence[Scored], most_rows: int) -> Iterator[list[Scored]]:
    part: list[Scored] = []
    tokens = rows = 0
    for ids, first in texts:
        own = len(ids) - 1 - first
        if part and (tokens + len(ids) > _TOKENS or rows + own > most_rows):
            yield part
            part, tokens, rows = [], 0, 0
        part.append((ids, first))
        tokens += len(ids)
        rows += own
    if part:
        yield part
