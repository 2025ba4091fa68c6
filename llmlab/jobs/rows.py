"""The rows of a job, read one after the other: lists, DataFrames, data sets, JSON Lines, CSV and Parquet files."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError

FORMS = (
    "Pass a list of dicts, a DataFrame, a datasets.Dataset or IterableDataset, or the path of a .jsonl, .csv or "
    ".parquet file."
)
_READ_AT_ONCE = 1024
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the data.

    Attributes:
        index: its place, from 0.
        values: its columns, for the prompt.
        kept: its columns in JSON's types, for the result; without bytes and images.
        digest: the digest of all rows up to this one.
        error: why it can't be read.
    """

    index: int
    values: Mapping[str, Any]
    kept: Mapping[str, Any]
    digest: str
    error: str = ""


class Rows:
    """Reads data in order, once.

    Args:
        data: a list of dicts or another iterable of them, a DataFrame, a `datasets` data set, or a path.

    Attributes:
        origin: what it is, for messages.
        length: the number of rows; None if it is known only at the end.
        columns: the columns of the first row.

    Raises:
        BadInputError: there is no such file, it has no rows, or the type isn't supported.
    """

    def __init__(self, data: Any) -> None:
        self.origin, self.length, values = _opened(data)
        first = next(values, None)
        if first is None:
            raise BadInputError(f"There is no data: {self.origin} is empty.", FORMS)
        self.columns = tuple(first) if isinstance(first, Mapping) else ()
        self._first = first
        self._data = data
        self._values = itertools.chain([first], values)
        self._index = 0
        self._digest = b""

    def fingerprint(self) -> str:
        """A digest of all rows in memory, of a file, or else of the first row and the length.

        The rows are still read from the first one on.
        """
        out = hashlib.sha256(f"{self.origin} {self.length}".encode())
        if isinstance(self._data, str | Path) and Path(str(self._data)).expanduser().is_file():
            with Path(str(self._data)).expanduser().open("rb") as file:
                while block := file.read(_BLOCK):
                    out.update(block)
            return out.hexdigest()
        in_memory = isinstance(self._data, list | tuple) or hasattr(self._data, "iloc")
        for row in _opened(self._data)[2] if in_memory else [self._first]:
            out.update(_plain_row(row if isinstance(row, Mapping) else {})[1].encode("utf-8", "surrogatepass"))
        return out.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        given = next(self._values)
        error = ""
        if not isinstance(given, Mapping):
            error = given if isinstance(given, str) else f"A row is a dict of columns, got {type(given).__name__}."
            given = {}
        kept, text = _plain_row(given)
        self._digest = hashlib.sha256(self._digest + (text + error).encode("utf-8", "surrogatepass")).digest()
        row = Row(self._index, given, kept, self._digest.hex(), error)
        self._index += 1
        return row


# -- where rows come from ----------------------------------------------------------------------


def _opened(data: Any) -> tuple[str, int | None, Iterator[Any]]:
    """(what it is, the number of rows, the rows); a row that can't be read is the reason, as a text."""
    if isinstance(data, str | Path):
        return _file(Path(str(data)).expanduser(), str(data))
    kind = type(data).__name__
    if kind in ("DatasetDict", "IterableDatasetDict"):
        splits = list(data)
        raise BadInputError(f"The data has the splits {', '.join(splits)}.", f"Pass one: data[{splits[0]!r}]")
    if hasattr(data, "iloc"):  # pandas
        return "a DataFrame", len(data), _frame_rows(data)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise BadInputError(f"{kind} isn't supported as data.", FORMS)
    length = len(data) if isinstance(data, Sized) else None
    return {"list": "a list", "Dataset": "a data set"}.get(kind, f"{kind}"), length, iter(data)


def _frame_rows(frame: Any) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(frame), _READ_AT_ONCE):
        for row in frame.iloc[start : start + _READ_AT_ONCE].to_dict(orient="records"):
            yield {str(name): None if _missing(value) else value for name, value in row.items()}


def _missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NaTType", "NAType") or (isinstance(value, float) and value != value)
    )


def _file(path: Path, given: str) -> tuple[str, int | None, Iterator[Any]]:
    readers: dict[str, Callable[[Path], tuple[int | None, Iterator[Any]]]] = {
        ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv, ".parquet": _parquet,
    }  # fmt: skip
    try:
        if path.is_dir():
            _imports.load("datasets")
            import datasets

            return _opened(datasets.load_from_disk(str(path)))
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} can't be read as a data set: {error}.", FORMS) from None
    if not found:
        hub = given.count("/") == 1 and not given.startswith((".", "/", "~")) and not path.suffix
        hint = f'Stream it: datasets.load_dataset("{given}", split="train", streaming=True)' if hub else FORMS
        raise BadInputError(f"There is no file {path}.", hint)
    if path.suffix.lower() not in readers:
        raise BadInputError(f"{path.name} isn't a supported data file.", f"Known: {', '.join(readers)}.")
    length, rows = readers[path.suffix.lower()](path)
    return path.name, length, rows


def _json_lines(path: Path) -> tuple[int, Iterator[Any]]:
    def rows() -> Iterator[Any]:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except ValueError as error:  # UnicodeDecodeError is one
                    value = f"Line {number} of {path.name} isn't JSON: {error}."
                if isinstance(value, str) and not value.startswith("Line "):
                    value = f"Line {number} of {path.name} is a text, not a JSON object."
                yield value

    return _lines(path), rows()


def _lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _csv(path: Path) -> tuple[None, Iterator[Any]]:
    def rows() -> Iterator[Any]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)

    return None, rows()


def _parquet(path: Path) -> tuple[int, Iterator[Any]]:
    try:
        _imports.load("pyarrow.parquet")
    except ImportError:
        raise BadInputError(f"{path.name}: Parquet needs the package pyarrow.", "pip install pyarrow") from None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{path} can't be read as Parquet: {error}.", FORMS) from None

    def rows() -> Iterator[Any]:
        with file:
            for batch in file.iter_batches(batch_size=_READ_AT_ONCE):
                yield from batch.to_pylist()

    return int(file.metadata.num_rows), rows()


# -- values in JSON's types --------------------------------------------------------------------


def _plain_row(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The columns in JSON's types, and a text that determines all of them."""
    try:
        return row, json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        values = {str(name): plain(value) for name, value in row.items()}
        kept = {name: value for name, value in values.items() if not isinstance(value, _Blob)}
        text = json.dumps(values, ensure_ascii=False, default=lambda blob: blob.digest)
        return kept, text


@dataclass(frozen=True, slots=True)
class _Blob:
    """Bytes or an image: part of the digest, but not of the result."""

    digest: str


def plain(value: Any) -> Any:
    """A value in JSON's types; bytes and images become their digest."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # NaN and infinities aren't JSON
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return _Blob(hashlib.sha256(value).hexdigest())
    if hasattr(value, "model_dump"):  # pydantic
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if hasattr(value, "tobytes"):  # images
        return _Blob(hashlib.sha256(value.tobytes()).hexdigest())
    if isinstance(value, Iterable) and not isinstance(value, Iterator):
        return [plain(one) for one in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return str(value)
