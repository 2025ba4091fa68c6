"""Values recorded in a notebook, and read back from the executed notebook."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.display.mime import publish
from llmlab.errors import BadInputError
from llmlab.render import units
from llmlab.render.safe import plain
from llmlab.render.table import Table, View

if TYPE_CHECKING:
    import pandas as pd

MIME = "application/vnd.llmlab.record+json"
TEXT_LIMIT = 200  # characters of a recorded text; longer text is output

Value = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded value.

    Attributes:
        name: what it measures.
        value: a finite number, a bool or a short text.
        unit: its unit; "" for none.
    """

    name: str
    value: Value
    unit: str = ""

    @property
    def shown(self) -> str:
        """The value as text without the unit: numbers with three significant digits, bools as yes or no."""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, int):
            return f"{self.value:,}"
        return units.three(self.value) if isinstance(self.value, float) else self.value

    def __str__(self) -> str:
        return f"{self.name}: {self.shown} {self.unit}".strip()


class RecordList(View, Sequence[Record]):
    """Records in notebook order: a sequence, displayed as a table; `.frame` is a DataFrame."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = tuple(records)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per record, with the columns name, value and unit."""
        _imports.load("pandas")
        import pandas as pd

        return pd.DataFrame([asdict(r) for r in self._records], columns=["name", "value", "unit"])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._records)

    def _table(self) -> Table:
        rows = [(r.name, r.shown, r.unit) for r in self._records]
        return Table(("record", "value>", "unit"), rows, empty="No records. Record a value with llmlab.record().")

    def text(self) -> str:
        """The table as aligned text."""
        return self._table().text()

    def html(self) -> str:
        """The table as HTML."""
        return self._table().html()


def record(name: str, value: Any, unit: str = "") -> None:
    """Record a value in this notebook: `llmlab.record("decode speed", 5147.2, "tokens/s")`.

    It is displayed as one line, and stored in the executed notebook for `llmlab.records`, `llmlab run` and its JUnit
    file. Outside a notebook the line is printed.

    Args:
        name: what it measures, on one line.
        value: a finite number (numpy's too), a bool, or a text of at most 200 characters on one line.
        unit: its unit ("tokens/s"); "" for none.

    Raises:
        BadInputError: a name, value or unit that can't be kept as it is.

    Example:
        >>> llmlab.record("decode speed", 5147.2, "tokens/s")
        decode speed: 5,147 tokens/s
    """
    made = Record(_line("name", name), _value(name, value), _line("unit", unit, empty=True))
    publish(str(made), {MIME: asdict(made)})


def records(notebook: str | os.PathLike[str] | Mapping[str, Any]) -> RecordList:
    """Read the records of an executed notebook.

    Args:
        notebook: a path to an `.ipynb` file, or a notebook object from nbformat or papermill.

    Returns:
        The records, in order; `.frame` is a DataFrame.

    Raises:
        BadInputError: no such file, or not a notebook.

    Example:
        >>> llmlab.records({"cells": []})
        No records. Record a value with llmlab.record().
    """
    content = notebook if isinstance(notebook, Mapping) else _read(Path(notebook))
    found = []
    for cell in content.get("cells", ()):
        for output in cell.get("outputs", ()):
            data = output.get("data", {}).get(MIME)
            if data is not None:
                found.append(Record(str(data["name"]), data["value"], str(data.get("unit", ""))))
    return RecordList(found)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInputError(f"{path} is not a notebook: it isn't JSON.") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise BadInputError(f"{path} is not a notebook: it has no cells.")
    return content


def _value(name: object, value: Any) -> Value:
    # Scalars of numpy, torch and pandas, which all have `item`.
    if not isinstance(value, str | numbers.Real) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInputError(f"The record {name!r} must be a single value, got {type(value).__name__}.") from error
    if isinstance(value, str):
        return _line(f"value of {name!r}", value, empty=True)
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if not math.isfinite(number):
            raise BadInputError(
                f"The record {name!r} must be finite, got {number}.", "Record the text 'none' for a missing value."
            )
        return number
    raise BadInputError(
        f"The record {name!r} can't be a {type(value).__name__}.", "Record a number, a bool or a short text."
    )


def _line(what: str, text: object, *, empty: bool = False) -> str:
    if not isinstance(text, str):
        raise BadInputError(f"A record's {what} must be text, got {type(text).__name__}: {text!r:.80}.")
    if not text.strip() and not empty:
        raise BadInputError(f"A record's {what} can't be empty.")
    if len(text) > TEXT_LIMIT or len(text.splitlines()) > 1 or plain(text) != text:
        raise BadInputError(
            f"A record's {what} must be one line of at most {TEXT_LIMIT} plain characters, got {text!r:.80}.",
            "Print longer text instead; it is kept in the cell's output.",
        )
    return text.strip()
