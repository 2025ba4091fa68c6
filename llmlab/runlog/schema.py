"""The run log's tables. A change is a new function at the end: files of earlier releases are brought up to date."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

BUSY_S = 10.0


def migrations() -> Migrations:
    """The steps from an empty file to the tables of today, in order."""
    from sqlite_utils import Migrations

    step = Migrations("llmlab.runlog")

    @step()
    def first_tables(db: Database) -> None:
        db.table("conversations").create(
            {
                "id": str,
                "kind": str,  # cell, chat or arena
                "started": str,
                "updated": str,
                "title": str,
                "system": str,
                "settings": str,  # JSON: model, adapter, sampling, schema
                "leaf": str,  # the last turn shown
            },
            pk="id",
        ).create_index(["updated"])
        db.table("turns").create({"conversation": str, "id": str, "place": int, "body": str}, pk=("conversation", "id"))
        # Each message is kept once: a conversation of n turns is asked n times, always with all that came before.
        db.table("messages").create({"hash": str, "body": str}, pk="hash")
        db.table("runs").create(
            {
                "id": int,
                "conversation": str,
                "source": str,
                "at": str,
                "model": str,
                "engine": str,
                "quant": str,
                "adapter": str,
                "prompt": str,  # the last message, to search in; the whole is in messages
                "text": str,
                "texts": str,  # JSON: all n texts, where n > 1
                "finish_reason": str,
                "params": str,  # JSON
                "messages": str,  # JSON: hashes of what was asked, oldest first
                "turns": str,  # JSON: hashes of the tool calls and results in between
                "prompt_tokens": int,
                "completion_tokens": int,
                "cached_tokens": int,
                "ttft_s": float,
                "total_s": float,
                "tokens_per_s": float,
                "llmlab": str,
            },
            pk="id",
        ).create_index(["conversation"])
        db.table("runs").create_index(["at"])

    return step


def connect(path: Path) -> Database:
    """Open the file, made and brought up to date as needed; only its owner may read it.

    Raises:
        OSError, sqlite3.Error: it can't be opened or written.
    """
    from sqlite_utils import Database

    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        _write_ahead(connection)
        db = Database(connection, execute_plugins=False)
        steps = migrations()
        if steps.pending(db):
            with writing(db):  # two kernels may find it out of date at once
                steps.apply(db)
    except BaseException:
        connection.close()
        raise
    return db


@contextmanager
def writing(db: Database) -> Iterator[None]:
    """A transaction that waits for its turn at the start: one that reads first and then writes would fail instead."""
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Kernels that read don't wait for one that writes. SQLite doesn't wait for its turn to switch to this."""
    connection.execute("PRAGMA synchronous=NORMAL")
    end = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
