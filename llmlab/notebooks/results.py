"""The results of running notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmlab import _imports
from llmlab.notebooks.failure import Failure
from llmlab.notebooks.figures import RecordList
from llmlab.render import units
from llmlab.render.table import Table, View, pre

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """The result of one notebook (or "not run", if the run stopped at an earlier failure).

    Attributes:
        name: the executed copy's name, without `.ipynb`.
        path: the notebook.
        executed: the executed copy, possibly partial; None if it was not run.
        seconds: duration, from starting the kernel to the end of its last process.
        ran: number of code cells that finished.
        cells: number of code cells.
        records: the values it recorded.
        failure: the failure, or None.
    """

    name: str
    path: Path
    executed: Path | None = None
    seconds: float = 0.0
    ran: int = 0
    cells: int = 0
    records: RecordList = field(default_factory=lambda: RecordList(()))
    failure: Failure | None = None

    @property
    def status(self) -> Status:
        """passed, failed or not run."""
        if self.failure is not None:
            return "failed"
        return "passed" if self.executed is not None else "not run"

    def __str__(self) -> str:
        line = f"{self.name}: {self.status}"
        if self.status == "not run":
            return line
        line += f" in {units.seconds(self.seconds)}, {self.ran} of {units.count(self.cells, 'cell')}"
        return line if self.failure is None else f"{line}\n{self.failure.line}"


class Runs(View, Sequence[NotebookRun]):
    """The results of all notebooks of one run: a sequence, displayed as a table of notebooks and one of records."""

    def __init__(self, runs: Sequence[NotebookRun]) -> None:
        self._runs = tuple(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        return self._runs[index]

    def __iter__(self) -> Iterator[NotebookRun]:
        return iter(self._runs)

    @property
    def ok(self) -> bool:
        """Whether all notebooks passed and left no process running."""
        return all(run.status == "passed" for run in self._runs)

    @property
    def seconds(self) -> float:
        """Their total duration."""
        return sum(run.seconds for run in self._runs)

    @property
    def failed(self) -> tuple[NotebookRun, ...]:
        """The failed notebooks."""
        return tuple(run for run in self._runs if run.failure is not None)

    @property
    def frame(self) -> pd.DataFrame:
        """All records, one row each, with the columns notebook, name, value and unit."""
        _imports.load("pandas")
        import pandas as pd

        rows = [(run.name, r.name, r.value, r.unit) for run in self._runs for r in run.records]
        return pd.DataFrame(rows, columns=["notebook", "name", "value", "unit"])

    def junit(self, path: str | os.PathLike[str]) -> Path:
        """Write the results as JUnit XML: one test case per notebook, its records as properties."""
        from llmlab.notebooks.junit import write

        return write(self, Path(path))

    def tables(self) -> list[Table]:
        """A table of the notebooks, and one of their records if there are any."""
        rows = [
            (r.name, r.status, *(("", "") if r.executed is None else (f"{r.ran}/{r.cells}", units.seconds(r.seconds))))
            for r in self._runs
        ]
        counts = [f"{n} {word}" for word in ("passed", "failed", "not run") if (n := self._count(word))]
        note = f"{units.count(len(self), 'notebook')}: {', '.join(counts)}, in {units.seconds(self.seconds)}."
        notebooks = Table(("notebook", "status", "cells>", "time>"), rows, note=note, empty="No notebook was run.")
        recorded = [(r.name, r.shown, r.unit, run.name) for run in self._runs for r in run.records]
        records = Table(("record", "value>", "unit", "notebook"), recorded)
        return [notebooks, records] if recorded else [notebooks]

    def text(self) -> str:
        """Each failure, then the tables."""
        failures = [f"{run.name} failed: {run.failure}" for run in self.failed]
        return "\n\n".join([*failures, *(table.text() for table in self.tables())])

    def html(self) -> str:
        """Each failure, then the tables."""
        failures = [pre(f"{run.name} failed: {run.failure}") for run in self.failed]
        return "".join(f'<div style="margin-bottom:10px">{part}</div>' for part in [*failures, *self._html_tables()])

    def _html_tables(self) -> list[str]:
        return [table.html() for table in self.tables()]

    def _count(self, status: str) -> int:
        return sum(run.status == status for run in self._runs)
