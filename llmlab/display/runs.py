"""The run log as a table."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.render import units
from llmlab.render.table import Table, View

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 56
WRAPPED = 280  # characters of a text in a notebook, where it wraps
ROWS = 50


class RunsView(View):
    """Completions in the run log, oldest first. `frame` is the DataFrame, with more columns.

    Args:
        frame: the result of `llmlab.runs`.
        where: the log file, named below the table.
        found: the search term.
        off: the log is turned off.
    """

    def __init__(self, frame: pd.DataFrame, where: str, *, found: str = "", off: bool = False) -> None:
        self.frame = frame
        self._where = where
        self._found = found
        self._off = off

    def _table(self, most: int = SHOWN) -> Table:
        rows = [_cells(row, most) for row in self.frame.tail(ROWS).to_dict("records")]
        left = len(self.frame) - len(rows)
        state = " Logging is off (LLMLAB_RUN_LOG)." if self._off else ""
        older = f"{units.count(left, 'older run')} not shown. " if left else ""
        note = f"{older}Times in UTC. Continue one: %llm chat --resume CONVERSATION. Stored in {self._where}.{state}"
        nothing = f"Nothing in the run log matches {self._found!r}." if self._found else "The run log is empty."
        headings = ("at", "conversation", "source", "model", "prompt", "answer", "tokens>", "tokens/s>")
        return Table(headings, rows, note=note, empty=nothing + state)

    def text(self) -> str:
        """An aligned table."""
        return self._table().text()

    def html(self) -> str:
        """An HTML table; long texts wrap."""
        return self._table(WRAPPED).html()


def as_runs(frame: pd.DataFrame, log_file: str) -> pd.DataFrame:
    """A frame of the run log that a notebook shows as `RunsView`; what is computed from it is an ordinary DataFrame.

    Args:
        frame: the frame.
        log_file: where the log is, named below the table.
    """
    made = _frame_class()(frame)
    object.__setattr__(made, "log_file", log_file)
    return made


@functools.cache
def _frame_class() -> type[pd.DataFrame]:
    _imports.load("pandas")
    import pandas as pd

    class Runs(pd.DataFrame):
        _metadata = ["log_file"]  # noqa: RUF012 - pandas' name for attributes of its own

        @property
        def _constructor(self) -> type[pd.DataFrame]:
            return pd.DataFrame

        def _repr_html_(self) -> str:
            return RunsView(self, str(self.log_file))._repr_html_()

        def __reduce__(self) -> Any:  # a class in a function can't be pickled
            return pd.DataFrame, (pd.DataFrame(self),)

    return Runs


def _cells(row: Mapping[Hashable, Any], most: int) -> tuple[str, ...]:
    speed = row["tokens_per_s"]
    return (
        f"{row['at']:%Y-%m-%d %H:%M}",
        row["conversation"] or "-",
        row["source"],
        " ".join(part for part in (row["model"], row["quant"], row["adapter"]) if part),
        _short(row["prompt"], most),
        _short(row["text"], most),
        str(row["completion_tokens"]),
        units.three(speed) if speed and math.isfinite(speed) else "-",
    )


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
