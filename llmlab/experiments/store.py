"""Answers on disk, found again by their content: an SQLite file beside the run log."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab.errors import DiskError
from llmlab.runlog.schema import BUSY_S, writing

VERSION = 2
"""Part of every key; increment it when a request's meaning changes."""
_TABLES = (
    # request: what is known before a model is loaded; key: the same with the token ids that the model has read
    "create table if not exists answers (key text primary key, request text, at text, body text)",
    "create index if not exists idx_answers_request on answers (request)",
    # the scores that take a model; others are computed again, since their code may have changed
    "create table if not exists scores (key text, scorer text, body text, primary key (key, scorer))",
    "create table if not exists ratings (id integer primary key, experiment text, at text, body text)",
)
_MOST_VARIABLES = 500


def digest(content: Any) -> str:
    """SHA-256 (hex) of JSON content."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Store:
    """The answers of all experiments. Every answer is on disk when `put` returns.

    Args:
        path: the file; None is `experiments.db` in the data folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._opened: Path | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path or config.data_dir() / "experiments.db"

    def find(self, requests: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The answers to requests, by request; the newest where a request has several."""
        return self._select("select request, body from answers where request in ({}) order by at", requests)

    def find_keys(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The answers with these keys."""
        return self._select("select key, body from answers where key in ({})", keys)

    def put(self, key: str, request: str, body: Mapping[str, Any]) -> None:
        """Keep an answer."""
        values = (key, request, _now(), json.dumps(body, ensure_ascii=False))
        self._write("insert or replace into answers (key, request, at, body) values (?, ?, ?, ?)", values)

    def scores(self, scorer: str, keys: Iterable[str]) -> dict[str, Any]:
        """The scores that a scorer has given, by key."""
        found = self._select("select key, body from scores where key in ({}) and scorer = ?", keys, scorer)
        return {key: body["value"] for key, body in found.items()}

    def put_score(self, key: str, scorer: str, value: Any) -> None:
        """Keep a score."""
        values = (key, scorer, json.dumps({"value": value}))
        self._write("insert or replace into scores (key, scorer, body) values (?, ?, ?)", values)

    def ratings(self, experiment: str) -> list[dict[str, Any]]:
        """A person's ratings, oldest first."""
        query = "select body from ratings where experiment = ? order by id"
        return [json.loads(row[0]) for row in self._read(query, [experiment])]

    def rate(self, experiment: str, rating: Mapping[str, Any]) -> None:
        """Keep a rating."""
        values = (experiment, _now(), json.dumps(rating, ensure_ascii=False))
        self._write("insert into ratings (experiment, at, body) values (?, ?, ?)", values)

    def close(self) -> None:
        """Close the file; it is opened again at the next use."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _select(self, query: str, names: Iterable[str], *more: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        wanted = list(dict.fromkeys(names))
        for start in range(0, len(wanted), _MOST_VARIABLES):
            part = wanted[start : start + _MOST_VARIABLES]
            marks = ", ".join("?" * len(part))
            for name, body in self._read(query.format(marks), [*part, *more]):
                found[name] = json.loads(body)
        return found

    def _read(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        db = self._open()
        try:
            return db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise DiskError(f"{self.path} can't be read: {error}.", "Move it away, or set LLMLAB_DATA.") from error

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        db = self._open()
        try:
            with writing(db):
                db.execute(statement, values)
        except sqlite3.Error as error:
            raise DiskError(
                f"{self.path} can't be written: {error}.", "Free some space, or set LLMLAB_DATA."
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._db is not None and self._opened == self.path:
            return self._db
        self.close()
        path = self.path
        with config.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            for statement in _TABLES:
                db.execute(statement)
        except sqlite3.Error as error:
            raise DiskError(f"{path} can't be opened: {error}.", "Move it away, or set LLMLAB_DATA.") from error
        self._db, self._opened = db, path
        return db


def _now() -> str:
    return datetime.now(UTC).isoformat()
