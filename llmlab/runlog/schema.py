"""The run log's tables. Add a migration step at the end for each change, so that older files are upgraded."""

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
    """The migration steps from an empty file to the current tables, in order."""
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
        # Each message is stored once: a conversation of n turns has n runs, each with all previous messages.
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
                "prompt": str,  # the last user message, for searching; `messages` has all
                "text": str,
                "texts": str,  # JSON: all n texts, if n > 1
                "finish_reason": str,
                "params": str,  # JSON
                "messages": str,  # JSON: hashes of the prompt's messages, oldest first
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
    """Open the file, created or upgraded as needed; only its owner can read it.

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
            with writing(db):  # two kernels may try to upgrade it at the same time
                steps.apply(db)
    except BaseException:
        connection.close()
        raise
    return db


@contextmanager
def writing(db: Database) -> Iterator[None]:
    """A transaction that takes the write lock at the start: reading first and then writing could fail instead."""
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL, so that readers don't wait for a writer. SQLite's busy timeout doesn't cover the switch."""
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
