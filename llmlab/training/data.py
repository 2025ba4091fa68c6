"""Read training data of common formats into conversations, with the answers to learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError, LlmLabError
from llmlab.types import Message

FORMS = (
    'One row is {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]} '
    'or {"prompt": ..., "completion": ...}.'
)
_READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation to learn from.

    Attributes:
        messages: its turns, oldest first.
        skip: indices of assistant turns that are context only, not learned from: those rated with a thumbs-down.
        tools: OpenAI-style tool schemas, if any.
    """

    messages: tuple[Message, ...]
    skip: frozenset[int] = frozenset()
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def learned(self) -> list[int]:
        """Indices of the assistant turns that count for the loss."""
        turns = [i for i, m in enumerate(self.messages) if m.role == "assistant" and (m.content or m.tool_calls)]
        return [i for i in turns if i not in self.skip]

    def key(self) -> str:
        """The row as canonical JSON."""
        messages = [message.as_dict() for message in self.messages]
        return json.dumps([messages, sorted(self.skip), list(self.tools)], ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Data:
    """Training data.

    Attributes:
        rows: the rows with something to learn.
        heldout: rows of the data's own test or validation split; empty if there is none.
        digest: SHA-256 (hex) of all rows, independent of the file format.
        origin: the source, for the card.
        notes: what was left out, and why.
    """

    rows: tuple[Row, ...]
    heldout: tuple[Row, ...]
    digest: str
    origin: str
    notes: tuple[str, ...] = ()


def read(data: Any) -> Data:
    """Read training data.

    Args:
        data: a `datasets.Dataset` or `DatasetDict`, a pandas DataFrame, a list of dicts, a path to a json, jsonl, csv
            or parquet file (or a folder written by `save_to_disk`), or a hub id (`org/name`, `hf:org/name`). Rows have
            `messages`, or `prompt` and `completion` (texts, or lists of messages) with an optional `system`.
            `ratings` optionally has one number per assistant turn: turns below 0 are not learned from.

    Returns:
        The rows.

    Raises:
        BadInputError: no such file, an unknown format, or no assistant turns; the message names row and columns.
    """
    origin, splits = _open(data)
    main = next((name for name in ("train", "") if name in splits), next(iter(splits), ""))
    found = [_row(row, number) for number, row in enumerate(splits.get(main, ()))]
    if not found:
        raise BadInputError(f"The data set ({origin}) is empty.", FORMS)
    rows = tuple(row for row in found if row.learned)
    if not rows:
        marked = any(row.skip for row in found)
        why = "every answer has a thumbs-down" if marked else "no row has an assistant turn with text"
        raise BadInputError(f"There is nothing to learn in the data set ({origin}): {why}.", FORMS)
    notes = []
    if len(rows) < len(found):
        notes.append(
            f"{len(found) - len(rows)} of {len(found)} rows were left out: they have no assistant turn to learn from"
        )
    down = sum(len(row.skip) for row in rows)
    if down:
        notes.append(f"{down} answers with a thumbs-down were used as context only")
    other = next((name for name in ("test", "validation", "heldout") if name in splits), None)
    held = [_row(row, number) for number, row in enumerate(splits[other])] if other else []
    heldout = tuple(row for row in held if row.learned)
    digest = hashlib.sha256("\n".join(row.key() for row in (*found, *held)).encode()).hexdigest()
    return Data(rows, heldout, digest, origin, tuple(notes))


def split(data: Data, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split data into training and held-out rows: a seeded random split that keeps equal rows together.

    Args:
        data: the data; its own held-out split is used if there is one.
        share: fraction to hold out, 0 to below 1. With fewer than ten distinct rows, nothing is held out.
        seed: random seed.
    """
    if data.heldout:
        return list(data.rows), list(data.heldout)
    groups: dict[str, list[Row]] = {}
    for row in data.rows:
        groups.setdefault(row.key(), []).append(row)
    if share <= 0 or len(groups) < 10:
        return list(data.rows), []
    # Order by hash, so that the same rows are held out regardless of the file's order.
    order = sorted(groups, key=lambda key: hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest())
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    held = set(order[:count])
    train = [row for row in data.rows if row.key() not in held]
    return train, [groups[key][0] for key in order[:count]]


# -- sources -----------------------------------------------------------------------------------


def _open(data: Any) -> tuple[str, dict[str, Any]]:
    """The origin, and the splits as iterables of dicts; an unnamed split is called ""."""
    if isinstance(data, str | Path):
        return _open_text(data)
    if hasattr(data, "column_names") and not isinstance(data, Mapping):  # datasets.Dataset
        return "a Dataset", {"": data}
    if type(data).__name__ in ("DatasetDict", "IterableDatasetDict"):
        return "a DatasetDict", dict(data)
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        return "a DataFrame", {"": data.to_dict(orient="records")}
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        return "a list", {"": data}
    raise BadInputError(
        f"{type(data).__name__} isn't supported as training data.",
        f"Pass a datasets.Dataset, a DataFrame, a list of dicts, a file or a hub id. {FORMS}",
    )


def _open_text(given: str | Path) -> tuple[str, dict[str, Any]]:
    _imports.load("datasets")
    import datasets

    text = str(given).strip()
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            loaded = datasets.load_from_disk(str(path))
            return str(path), dict(loaded) if isinstance(loaded, Mapping) else {"": loaded}
        if path.is_file():
            if path.suffix.lower() not in _READERS:
                raise BadInputError(
                    f"{path.name} isn't a supported training data file.",
                    f"Known: {', '.join(_READERS)}.",
                )
            if _READERS[path.suffix.lower()] == "json":
                return str(path), {"": _json_rows(path)}
            kind = _READERS[path.suffix.lower()]
            return str(path), dict(datasets.load_dataset(kind, data_files=str(path)))
    except LlmLabError:
        raise
    except Exception as error:
        raise BadInputError(f"{path} can't be read as a data set: {_first_line(error)}.", FORMS) from error
    repo = text.removeprefix("hf:")
    local = path.suffix.lower() in _READERS or text.startswith((".", "/", "~"))
    if local or repo.count("/") != 1 or not all(repo.split("/")):
        raise BadInputError(
            f"There is no file {path}, and {text!r} isn't a hub id.",
            f"Pass a variable, a path relative to {Path.cwd()}, or org/name on the hub.",
        )
    try:
        return text, dict(datasets.load_dataset(repo))
    except Exception as error:
        raise BadInputError(
            f"The data set {repo} can't be loaded from the hub: {_first_line(error)}.",
            "Check the id and the network; data sets with a loading script aren't supported.",
        ) from error


def _json_rows(path: Path) -> list[Any]:
    """Rows of a JSON list or JSON Lines, parsed with Python: Arrow would give each tool call the keys of all others."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise BadInputError(f"{path.name}, line {number} is not JSON: {error}.", FORMS) from None
    return list(rows)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


# -- rows --------------------------------------------------------------------------------------


def _row(row: Any, number: int) -> Row:
    """Parse a row in either format.

    Raises:
        BadInputError: it has neither; the message names row and columns.
    """
    place = f"Row {number + 1} of the data set"
    if not isinstance(row, Mapping):
        raise BadInputError(f"{place} is {type(row).__name__}, not a dict.", FORMS)
    try:
        if _there(row.get("messages")):
            messages = _turns(row["messages"], "user")
        elif _there(row.get("prompt")) and _there(row.get("completion")):
            messages = _turns(row["prompt"], "user") + _turns(row["completion"], "assistant")
        else:
            columns = ", ".join(map(str, row)) or "none"
            raise BadInputError(f"it has neither messages nor prompt and completion (its columns: {columns}).")
    except BadInputError as error:
        raise BadInputError(f"{place}: {error.message}", error.hint or FORMS) from None
    if _there(row.get("system")) and messages[0].role != "system":
        messages = (Message("system", str(row["system"])), *messages)
    tools: Any = row.get("tools")
    offered = tuple(_without_gaps(tool) for tool in tools or ()) if _there(tools) else ()
    return replace(Row(messages, tools=offered), skip=_marked_down(row, messages, place))


def _marked_down(row: Mapping[str, Any], messages: Sequence[Message], place: str) -> frozenset[int]:
    ratings = row.get("ratings")
    if not _there(ratings):
        return frozenset()
    turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not isinstance(ratings, Sequence) or len(ratings) != len(turns):
        raise BadInputError(
            f"{place} has {len(turns)} assistant turns, but its ratings are {ratings!r}.",
            "Use one number for each assistant turn: 1, 0 or -1.",
        )
    return frozenset(turn for turn, rating in zip(turns, ratings, strict=True) if rating is not None and rating < 0)


def _there(value: Any) -> bool:
    """Whether a table cell has a value: Arrow fills gaps with None, pandas with NaN."""
    if value is None or isinstance(value, float):
        return False
    return len(value) > 0 if hasattr(value, "__len__") else True


def _turns(value: Any, role: str) -> tuple[Message, ...]:
    """The messages in a cell; a text becomes one turn of the given role."""
    if isinstance(value, str):
        return (Message.of({"role": role, "content": value}),)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise BadInputError(f"messages must be a list of messages, got {type(value).__name__}.")
    return tuple(Message.of(_without_gaps(turn) if isinstance(turn, Mapping) else turn) for turn in value)


def _without_gaps(value: Any) -> Any:
    """A value without the None entries that Arrow adds where rows differ in their keys."""
    if isinstance(value, Mapping):
        return {key: _without_gaps(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_gaps(item) for item in value]
    return value
