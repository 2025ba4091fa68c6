"""The run log's tables. A change is a new step at the end of `STEPS`: older files are brought up to date."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

BUSY_S = 10.0

_SET = "llmlab.runlog"
# Named and laid out as sqlite-utils does it, which made the first files.
_APPLIED = """
create table if not exists _sqlite_migrations (
    id integer primary key, migration_set text, name text, applied_at text
)
"""

# The steps from an empty file to the tables of today, in order: a name and its statements.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "first_tables",
        (
            # kind: cell, chat or arena; settings: JSON (model, adapter, sampling, schema); leaf: the last turn shown
            (
                "create table conversations (id text primary key, kind text, started text, updated text, title text, "
                "system text, settings text, leaf text)"
            ),
            "create index idx_conversations_updated on conversations (updated)",
            "create table turns (conversation text, id text, place integer, body text, primary key (conversation, id))",
            # Each message is kept once: a conversation of n turns is asked n times, always with all that came before.
            "create table messages (hash text primary key, body text)",
            # prompt: the last message, to search in; texts: JSON, where n > 1; params: JSON; messages and turns: JSON
            # lists of hashes, of what was asked and of the tool calls and results in between
            (
                "create table runs (id integer primary key, conversation text, source text, at text, model text, "
                "engine text, quant text, adapter text, prompt text, text text, texts text, finish_reason text, "
                "params text, messages text, turns text, prompt_tokens integer, completion_tokens integer, "
                "cached_tokens integer, ttft_s real, total_s real, tokens_per_s real, llmlab text)"
            ),
            "create index idx_runs_conversation on runs (conversation)",
            "create index idx_runs_at on runs (at)",
        ),
    ),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made and brought up to date as needed; only its owner may read it.

    Raises:
        OSError, sqlite3.Error: it can't be opened or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # isolation_level=None: sqlite3 opens no transactions of its own, `writing` does.
    db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        _write_ahead(db)
        if _pending(db):
            with writing(db):
                _bring_up_to_date(db)
    except BaseException:
        db.close()
        raise
    return db


def _pending(db: sqlite3.Connection) -> list[tuple[str, tuple[str, ...]]]:
    if db.execute("select 1 from sqlite_master where name = '_sqlite_migrations'").fetchone() is None:
        return list(STEPS)
    done = {row["name"] for row in db.execute("select name from _sqlite_migrations where migration_set = ?", [_SET])}
    return [step for step in STEPS if step[0] not in done]


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    db.execute(_APPLIED)
    # Asked again inside the transaction: two kernels may find the file out of date at once.
    for name, statements in _pending(db):
        for statement in statements:
            db.execute(statement)
        values = [_SET, name, str(datetime.now(UTC))]
        db.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values (?, ?, ?)", values)


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that waits for its turn at the start: one that reads first and then writes would fail instead."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
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
