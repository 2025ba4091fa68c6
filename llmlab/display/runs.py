"""The run log as a table."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from llmlab.render import units
from llmlab.render.table import Table, View

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 56


class RunsView(View):
    """Completions of the run log, oldest first. `frame` is the DataFrame, with more columns.

    Args:
        frame: what `llmlab.runs` returned.
        where: the file, said below.
        found: what was looked for.
        off: the log is turned off.
    """

    def __init__(self, frame: pd.DataFrame, where: str, *, found: str = "", off: bool = False) -> None:
        self.frame = frame
        self._where = where
        self._found = found
        self._off = off

    def _table(self) -> Table:
        rows = [_cells(row) for row in self.frame.to_dict("records")]
        state = " It is off now (LLMLAB_RUN_LOG)." if self._off else ""
        note = f"Times in UTC. Go on with one: %llm chat --resume CONVERSATION. Kept in {self._where}.{state}"
        nothing = f"Nothing in the run log has {self._found!r}." if self._found else "The run log is empty."
        headings = ("at", "conversation", "asked in", "model", "question", "answer", "tokens>", "tokens/s>")
        return Table(headings, rows, note=note, empty=nothing + state)

    def text(self) -> str:
        """An aligned table."""
        return self._table().text()

    def html(self) -> str:
        """An HTML table."""
        return self._table().html()


def _cells(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
    speed = row["tokens_per_s"]
    return (
        f"{row['at']:%Y-%m-%d %H:%M}",
        row["conversation"] or "-",
        row["source"],
        " ".join(part for part in (row["model"], row["quant"], row["adapter"]) if part),
        _short(row["prompt"]),
        _short(row["text"]),
        str(row["completion_tokens"]),
        units.three(speed) if speed and math.isfinite(speed) else "-",
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
