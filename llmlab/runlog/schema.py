"""The run log's tables. To change them, append a step to `STEPS`: older files are migrated."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

BUSY_S = 10.0

_SET = "llmlab.runlog"
# The name and layout of sqlite-utils, which created the first files.
_APPLIED = """
create table if not exists _sqlite_migrations (
    id integer primary key, migration_set text, name text, applied_at text
)
"""

# The migrations from an empty file to the current tables, in order: name and statements.
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
            # Each message is stored once: a conversation of n turns is sent n times, each time with all earlier turns.
            "create table messages (hash text primary key, body text)",
            # prompt: the last message, for searching; texts: JSON, if n > 1; params: JSON; messages and turns: JSON
            # lists of hashes, of the prompt's messages and of the tool calls and results that followed
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
    (
        "thoughts",  # what a reasoning model wrote before its answer, and its length; null in older rows
        ("alter table runs add column reasoning text", "alter table runs add column reasoning_tokens integer"),
    ),
    (
        "loads",  # the memory ledger, in bytes; returned and kept are null until the model is unloaded
        (
            (
                "create table loads (id integer primary key, key text unique, session text, at text, machine text, "
                "model text, engine text, quant text, device text, context integer, concurrency integer, "
                "estimated integer, loaded integer, peak integer, returned integer, kept integer)"
            ),
            "create index idx_loads_machine on loads (machine, engine)",
        ),
    ),
    (
        "votes",  # body: JSON, a ballot of an arena
        ("create table votes (id integer primary key, at text, body text)",),
    ),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, creating or migrating it if needed. Only its owner may read it.

    Raises:
        OSError, sqlite3.Error: it can't be opened or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never a file that exists: closing any descriptor of it drops this process's locks on it (POSIX), and another
    # process would then delete the journal that a connection here still uses ("database disk image is malformed").
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    # isolation_level=None: sqlite3 opens no transactions of its own, `writing` does.
    db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        _write_ahead(db)
        if _pending(db):
            with writing(db):
                _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _pending(db: sqlite3.Connection) -> list[tuple[str, tuple[str, ...]]]:
    if db.execute("select 1 from sqlite_master where name = '_sqlite_migrations'").fetchone() is None:
        return list(STEPS)
    done = {row["name"] for row in db.execute("select name from _sqlite_migrations where migration_set = ?", [_SET])}
    return [step for step in STEPS if step[0] not in done]


def _migrate(db: sqlite3.Connection) -> None:
    db.execute(_APPLIED)
    # Checked again inside the transaction: two kernels may find the file out of date at the same time.
    for name, statements in _pending(db):
        for statement in statements:
            db.execute(statement)
        values = [_SET, name, str(datetime.now(UTC))]
        db.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values (?, ?, ?)", values)


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the write lock at its start: upgrading from read to write would fail, not wait."""
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
