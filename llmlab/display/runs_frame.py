"""The DataFrame that `llmlab.runs` returns: shown as `RunsView` in a notebook. Imports pandas."""

from __future__ import annotations

import pandas as pd

from llmlab.display.runs import RunsView


class Runs(pd.DataFrame):
    """A DataFrame of runs. What is selected or computed from it is an ordinary DataFrame."""

    _metadata = ["log_file"]  # noqa: RUF012 - pandas' name for attributes of its own
    log_file: str = ""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        return RunsView(self, self.log_file)._repr_html_()


def as_runs(frame: pd.DataFrame, log_file: str) -> Runs:
    """The frame of a run log as `Runs`.

    Args:
        frame: the frame.
        log_file: the log file, named below the table.
    """
    made = Runs(frame)
    made.log_file = log_file
    return made
