"""The run log's interface: adds completions, stores transcripts, reads both back, prunes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports, config
from llmlab.errors import BadInputError, DiskError, LlmLabError, unknown
from llmlab.runlog.rows import Cleaner, Kept, bodies_of, kept, like, now, read_row, readable, run_row, system_of, touch
from llmlab.runlog.schema import connect, writing
from llmlab.runlog.search import Found, find
from llmlab.runlog.writer import Writer
from llmlab.types import Completion

if TYPE_CHECKING:
    import pandas as pd

FLUSH_S = 10.0
COLUMNS = (
    *("at", "conversation", "source", "model", "engine", "quant", "adapter", "prompt", "text", "reasoning"),
    *("finish_reason", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"),
    *("ttft_s", "total_s", "tokens_per_s", "params", "messages", "turns", "texts"),
)
_RUN = (
    *("conversation", "source", "at", "model", "engine", "quant", "adapter", "prompt", "text", "texts"),
    *("reasoning", "reasoning_tokens", "finish_reason", "params", "messages", "turns"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "ttft_s", "total_s", "tokens_per_s", "llmlab"),
)
_INSERT_RUN = f"insert into runs ({', '.join(_RUN)}) values ({', '.join(':' + name for name in _RUN)})"  # noqa: S608

_LOAD = (
    *("key", "session", "at", "machine", "model", "engine", "quant", "device", "context", "concurrency"),
    *("estimated", "loaded", "peak"),
)
_INSERT_LOAD = f"insert into loads ({', '.join(_LOAD)}) values ({', '.join(':' + name for name in _LOAD)})"  # noqa: S608


class RunLog:
    """Completions and chats on disk. Created by a `Lab`; the file is opened at the first read or write.

    Args:
        path: the file; None is `runs.db` in the data folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._writer: Writer | None = None
        self._lock = threading.Lock()
        self._warned = False

    @property
    def path(self) -> Path:
        """The file."""
        return self._path or config.data_dir() / "runs.db"

    @property
    def enabled(self) -> bool:
        """False if LLMLAB_RUN_LOG=off."""
        return os.environ.get("LLMLAB_RUN_LOG", "").strip().lower() not in ("off", "0", "no", "false")

    # -- writing: returns immediately, raises nothing ----------------------------------------------------

    def add(self, completion: Completion, *, source: str, conversation: str = "") -> None:
        """Add a completion.

        Args:
            completion: a finished or interrupted completion.
            source: cell, chat, arena or serve.
            conversation: the id of its conversation.
        """
        at = now()

        def job(db: sqlite3.Connection) -> None:
            clean = Cleaner(db)
            row = run_row(completion, source, conversation, at, clean)
            db.execute(_INSERT_RUN, row)
            if conversation:
                touch(db, conversation, source, at, row["prompt"], clean.text(system_of(completion)))

        self._put(job)

    def keep(
        self,
        conversation: str,
        *,
        system: str,
        settings: Mapping[str, Any],
        leaf: str,
        changed: Sequence[tuple[int, Mapping[str, Any]]],
        gone: Iterable[str] = (),
    ) -> None:
        """Update a chat's transcript.

        Args:
            conversation: its id.
            system: the system prompt.
            settings: model, adapter, sampling, schema, think.
            leaf: the last turn shown.
            changed: (place, turn) of new or changed turns.
            gone: ids of deleted turns.
        """
        at, lost = now(), tuple(gone)

        def job(db: sqlite3.Connection) -> None:
            clean = Cleaner(db)
            first = next((str(turn["text"]) for place, turn in changed if place == 0), "")
            touch(db, conversation, "chat", at, clean.text(first), clean.text(system))
            more = (clean.text(system), clean.json(settings), leaf, conversation)
            db.execute("update conversations set system = ?, settings = ?, leaf = ? where id = ?", more)
            db.executemany(
                "insert into turns (conversation, id, place, body) values (?, ?, ?, ?) "
                "on conflict (conversation, id) do update set place = excluded.place, body = excluded.body",
                [(conversation, turn["id"], place, clean.json(turn)) for place, turn in changed],
            )
            gone_now = [(conversation, one) for one in lost]
            db.executemany("delete from turns where conversation = ? and id = ?", gone_now)

        self._put(job)

    def add_load(self, row: Mapping[str, Any]) -> None:
        """Add a load to the memory ledger; see `llmlab.runlog.ledger`."""
        values = {name: row[name] for name in _LOAD}

        def job(db: sqlite3.Connection) -> None:
            db.execute(_INSERT_LOAD, values)

        self._put(job)

    def end_load(self, key: str, *, peak: int, returned: int, kept: int | None) -> None:
        """Add what a load took at most, and what came back, to its entry."""

        def job(db: sqlite3.Connection) -> None:
            db.execute("update loads set peak = ?, returned = ?, kept = ? where key = ?", (peak, returned, kept, key))

        self._put(job)

    def loads(self, *, machine: str | None = None, n: int | None = None) -> list[dict[str, Any]]:
        """The ledger's entries, newest first.

        Args:
            machine: only those of a kind of machine.
            n: only the newest n.
        """
        where, values = ("machine = ?", [machine]) if machine is not None else ("1", [])
        with _Reading(self) as db:
            if db is None:
                return []
            query = f"select * from loads where {where} order by id desc limit ?"  # noqa: S608
            return [dict(row) for row in db.execute(query, [*values, -1 if n is None else n])]

    def vote(self, ballot: Mapping[str, Any]) -> None:
        """Add an arena's vote.

        Args:
            ballot: a row of `Arena.votes`.
        """
        at = now()

        def job(db: sqlite3.Connection) -> None:
            db.execute("insert into votes (at, body) values (?, ?)", (at, Cleaner(db).json(ballot)))

        self._put(job)

    def flush(self, timeout: float = FLUSH_S) -> bool:
        """Wait until everything added is on disk. Returns whether it is."""
        writer = self._writer
        return writer is None or writer.flush(timeout)

    def close(self) -> None:
        """Write pending entries and end the writer's thread; a later entry restarts it."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()

    def _put(self, job: Any) -> None:
        if not self.enabled:
            return
        with self._lock:
            try:
                path = self.path
            except LlmLabError as error:  # the folder's path is invalid
                if not self._warned:
                    self._warned = True
                    with contextlib.suppress(Warning):
                        warnings.warn(f"llmlab: can't write the run log: {error}", RuntimeWarning, stacklevel=2)
                return
            if self._writer is not None and not self._writer.alive:  # this process is a fork, without the thread
                self._writer = None
            if self._writer is not None and self._writer.path != path:  # LLMLAB_DATA was changed
                self._writer.stop()
                self._writer = None
            if self._writer is None:
                self._writer = Writer(path)
                # Also at interpreter exit, so that a script's last completion is written.
                weakref.finalize(self, self._writer.stop)
            self._writer.put(job)

    # -- reading -------------------------------------------------------------------------------------

    def frame(
        self, n: int | None = None, *, search: str | None = None, conversation: str | None = None
    ) -> pd.DataFrame:
        """Completions as a DataFrame, oldest first.

        Args:
            n: only the newest n.
            search: only those whose prompt or completion contains this text (case-insensitive).
            conversation: only those of a conversation.
        """
        _imports.load("pandas")
        import pandas as pd

        if n is not None and n < 1:
            raise BadInputError(f"n must be 1 or more, got {n}.")
        wheres, values = ["1"], []
        if search:
            wheres.append("(prompt like ? escape '\\' or text like ? escape '\\')")
            values += [f"%{like(search)}%"] * 2
        if conversation:
            wheres.append("conversation = ?")
            values.append(conversation)
        order = f"id desc limit {int(n)}" if n is not None else "id desc"
        with _Reading(self) as db:
            query = f"select * from runs where {' and '.join(wheres)} order by {order}"  # noqa: S608 - built from constants
            found = [] if db is None else [dict(row) for row in db.execute(query, values)]
            bodies = bodies_of(db, found) if db is not None else {}
        rows = [read_row(row, bodies) for row in reversed(found)]
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        table["at"] = pd.to_datetime(table["at"], utc=True, format="ISO8601")
        return table

    def votes(self) -> list[dict[str, Any]]:
        """The votes of all arenas, oldest first, as they were given to `vote`."""
        with _Reading(self) as db:
            found = [] if db is None else db.execute("select body from votes order by id").fetchall()
            return [json.loads(row["body"]) for row in found]

    def conversations(self, n: int = 20, *, kind: str | None = None) -> list[Kept]:
        """The newest conversations, newest first, without their turns."""
        where, values = ("kind = ?", [kind]) if kind else ("1", [])
        with _Reading(self) as db:
            if db is None:
                return []
            query = f"select * from conversations where {where} order by updated desc, rowid desc limit ?"  # noqa: S608
            return [kept(row) for row in db.execute(query, [*values, n])]

    def find(self, query: str = "", n: int = 20, *, kind: str | None = None) -> list[Found]:
        """Conversations that contain all words of a query, newest first.

        Args:
            query: words; "": all conversations.
            n: most conversations.
            kind: cell, chat or arena; None: all.
        """
        if n < 1:
            raise BadInputError(f"n must be 1 or more, got {n}.")
        with _Reading(self) as db:
            return [] if db is None else find(db, query, n, kind)

    def conversation(self, wanted: str | None = None) -> Kept:
        """A conversation with its turns.

        Args:
            wanted: its id, or a unique prefix of it; None: the last used chat.

        Raises:
            UnknownNameError: no such conversation.
        """
        recent = self.conversations(1, kind="chat") if wanted is None else []
        if wanted is None and not recent:
            hint = "LLMLAB_RUN_LOG is off." if not self.enabled else "Open a new one: llmlab.chat()"
            raise BadInputError("The run log has no chat to resume.", hint)
        key = wanted if wanted is not None else recent[0].id
        with _Reading(self) as db:
            query = "select * from conversations where id like ? escape '\\' limit 2"
            rows = [] if db is None else db.execute(query, [f"{like(key)}%"]).fetchall()
            exact = [row for row in rows if row["id"] == key]
            rows = exact or rows
            if len(rows) != 1 or db is None or not key:
                raise unknown("conversation", key, [one.id for one in self.conversations(8)], "See %llm history --log.")
            found = kept(rows[0])
            bodies = db.execute("select body from turns where conversation = ? order by place", [found.id])
            turns = tuple(json.loads(row["body"]) for row in bodies)
        return Kept(**{**vars(found), "turns": turns or self._cell_turns(found.id)})

    def _cell_turns(self, conversation: str) -> tuple[dict[str, Any], ...]:
        """A cell conversation's messages: those of its last completion's prompt, and that completion."""
        last = self.frame(1, conversation=conversation)
        if not len(last):
            return ()
        row = last.iloc[0]
        thought = {"reasoning_content": row["reasoning"]} if row["reasoning"] else {}
        turns = (*row["messages"], *row["turns"], {"role": "assistant", "content": row["text"], **thought})
        return tuple(readable(turn) for turn in turns)

    # -- pruning ---------------------------------------------------------------------------------------

    def prune(self, older_than: timedelta) -> int:
        """Delete completions and votes older than this, and conversations last updated before.

        Returns:
            The number of deleted completions.
        """
        self.flush()
        before = (datetime.now(UTC) - older_than).isoformat()
        with _Reading(self) as db:
            if db is None:
                return 0
            with writing(db):
                runs = db.execute("delete from runs where at < ?", [before]).rowcount
                db.execute("delete from votes where at < ?", [before])
                db.execute("delete from conversations where updated < ?", [before])
                db.execute("delete from loads where at < ?", [before])
                db.execute("delete from turns where conversation not in (select id from conversations)")
                db.execute(
                    "delete from messages where hash not in (select value from runs, json_each(runs.messages) "
                    "union select value from runs, json_each(runs.turns))"
                )
            db.execute("vacuum")
        return int(runs)


class _Reading:
    """The file, opened for reading, or None if there is none. SQLite's errors become `LlmLabError`s."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> sqlite3.Connection | None:
        self._log.flush()
        try:
            self._db = connect(self._log.path) if self._log.path.is_file() else None
        except (sqlite3.Error, OSError) as error:
            raise self._unreadable(error) from error
        return self._db

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._db is not None:
            self._db.close()
        if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, LlmLabError):
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> LlmLabError:
        if isinstance(error, OSError) or any(word in str(error) for word in ("full", "readonly", "unable to open")):
            # SQLite writes next to the file even when reading it.
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return DiskError(
                f"Can't read the run log: {why} ({self._log.path}).",
                f"Free space in {self._log.path.parent} or make it writable, or set LLMLAB_DATA to another folder.",
            )
        return LlmLabError(
            f"Can't read the run log: {error}.", f"Move the file away to start a new one: {self._log.path}"
        )
