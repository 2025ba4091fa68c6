"""What came of running notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmlab.render import units
from llmlab.render.table import Table, View, pre
from llmlab.notebooks.records import RecordList
from llmlab.notebooks.failure import Failure

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """One notebook, executed (or not, after an earlier one failed and the run stopped there).

    Attributes:
        name: the executed copy's name, without `.ipynb`.
        path: the notebook.
        executed: the executed copy, as far as it came; None when it was not run.
        seconds: how long it took, from starting the kernel until its last process had ended.
        ran: how many code cells ran to their end.
        cells: how many code cells it has.
        records: what it recorded.
        failure: what went wrong; None when nothing did.
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
    """All notebooks of one run: a sequence, shown as a table of them and one of what they recorded."""

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
        """All notebooks ran to their end, and left nothing behind."""
        return all(run.status == "passed" for run in self._runs)

    @property
    def seconds(self) -> float:
        """How long they took together."""
        return sum(run.seconds for run in self._runs)

    @property
    def failed(self) -> tuple[NotebookRun, ...]:
        """Those that failed."""
        return tuple(run for run in self._runs if run.failure is not None)

    @property
    def frame(self) -> pd.DataFrame:
        """What was recorded: one row a record, with the columns notebook, name, value and unit."""
        import pandas as pd

        rows = [(run.name, r.name, r.value, r.unit) for run in self._runs for r in run.records]
        return pd.DataFrame(rows, columns=["notebook", "name", "value", "unit"])

    def junit(self, path: str | os.PathLike[str]) -> Path:
        """Write the runs as JUnit XML: a test case a notebook, its records as properties."""
        from llmlab.notebooks.junit import write

        return write(self, Path(path))

    def tables(self) -> list[Table]:
        """The notebooks, and what they recorded (if anything)."""
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
