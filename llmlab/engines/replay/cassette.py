"""The file of recorded answers: JSON lines, one per model, text and answer, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab._version import __version__
from llmlab.errors import BadInputError

KIND = "llmlab answers"
VERSION = 1

Row = dict[str, Any]


def digest(content: Any) -> str:
    """A short hash of JSON data."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:24]


def canonical(content: Any) -> str:
    """JSON data as one line, the same for equal data."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Cassette:
    """The rows of a file by what they answer.

    Attributes:
        path: the file.
        rows: (kind, model, key) -> row, in the order they were recorded.
    """

    def __init__(self, path: Path, rows: Iterable[Row] = ()) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, str], Row] = {}
        for row in rows:
            self.add(row)

    @classmethod
    def read(cls, path: Path) -> Cassette:
        """Read a file.

        Raises:
            BadInputError: it can't be read, isn't one, or was written by a newer llmlab.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            head, *rows = [json.loads(line) for line in lines if line.strip()] or [{}]
            if not isinstance(head, dict) or head.get("kind") != KIND:
                raise ValueError("its first line doesn't say that it is one")
            if head.get("version") != VERSION:
                raise BadInputError(
                    f"{path} has version {head.get('version')} of recorded answers; this llmlab reads {VERSION}.",
                    "Record it again, or update llmlab.",
                )
            return cls(path, rows)
        except OSError as error:
            raise BadInputError(
                f"The recorded answers {path} can't be read: {error.strerror or error}.",
                "Record them: with llmlab.record_answers(path), or llmlab run --record FILE.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, BadInputError):
                raise
            raise BadInputError(f"{path} is no file of recorded answers: {error}.", "Record it again.") from error

    def add(self, row: Row) -> None:
        """Add a row, in the place of an equal request's. An answer that was cut off doesn't replace a whole one."""
        key = (str(row["kind"]), str(row["model"]), str(row["key"]))
        before = self.rows.get(key)
        if before is not None and _same(before, row):
            return
        if before is not None and row.get("finish") == "interrupted" and before.get("finish") != "interrupted":
            return
        self.rows[key] = row

    def get(self, kind: str, model: str, key: str) -> Row | None:
        """The row of a request, or None."""
        return self.rows.get((kind, model, key))

    def of(self, kind: str, model: str | None = None) -> list[Row]:
        """The rows of a kind, of one model or all."""
        return [row for (k, m, _), row in self.rows.items() if k == kind and model in (None, m)]

    def save(self) -> None:
        """Write the file under a temporary name, and rename it.

        Raises:
            DiskError: it can't be written.
        """
        head = {"kind": KIND, "version": VERSION, "llmlab": __version__}
        lines = [json.dumps(row, ensure_ascii=False) for row in (head, *self.rows.values())]
        with config.writing(self.path), config.replacing(self.path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _same(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether only the times differ, and the pieces that an answer came in: the file then doesn't change."""
    return _untimed(before) == _untimed(row)


def _untimed(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in row.items() if name not in ("seconds", "cached", "events")}
    pieces: list[list[Any]] = []
    for kind, text, ids, *logprobs in row.get("events", ()):
        own = list(logprobs[0]) if logprobs else []
        if pieces and pieces[-1][0] == kind:
            last = pieces[-1]
            pieces[-1] = [kind, last[1] + text, last[2] + list(ids), last[3] + own]
        else:
            pieces.append([kind, text, list(ids), own])
    return {**found, "events": pieces}
