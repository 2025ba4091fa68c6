"""The file of recorded answers: JSON lines, one per model, text and answer, added as they come."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab._version import __version__
from llmlab.errors import BadInputError

KIND = "llmlab answers"
VERSION = 1
WAIT_S = 5.0
"""How long a process waits for another one that writes to the same file, and may have been stopped."""

Row = dict[str, Any]


def digest(content: Any) -> str:
    """A short hash of JSON data."""
    return hashlib.sha256(canonical(content).encode("utf-8", "surrogatepass")).hexdigest()[:24]


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
        self._file: FileIO | None = None  # open while rows are added
        self._known = False  # the file had a header, and its rows are among these
        self._own: list[Row] | None = None  # those added since `begin`
        self.rows: dict[tuple[str, str, str], Row] = {}
        for row in rows:
            self.add(row)

    @classmethod
    def read(cls, path: Path) -> Cassette:
        """Read a file. Warns if its last line is incomplete, which a process leaves that is killed while it writes.

        Raises:
            BadInputError: it can't be read, isn't one, or was written by a newer llmlab.
        """
        found, complete = cls._read(path)
        if not complete:
            warnings.warn(
                f"The last line of {path} is incomplete and was left out: the process that recorded it was killed, or "
                "still writes.",
                RuntimeWarning,
                stacklevel=2,
            )
        return found

    @classmethod
    def _read(cls, path: Path) -> tuple[Cassette, bool]:
        """Read a file. Returns also whether its last line is complete. Raises as `read`."""
        try:
            first, *lines = path.read_bytes().split(b"\n")  # not splitlines, which also splits at U+2028
            head = _parsed(first) if first.strip() else {}
            if not isinstance(head, dict) or head.get("kind") != KIND:
                raise ValueError("its first line doesn't say that it is one")
            if head.get("version") != VERSION:
                raise BadInputError(
                    f"{path} has version {head.get('version')} of recorded answers; this llmlab reads {VERSION}.",
                    "Record it again, or update llmlab.",
                )
            known = bool(lines)
            last = lines.pop() if lines else b""
            found = cls(path, [_parsed(line) for line in lines if line.strip()])
            found._known = known
            try:
                if last.strip():
                    found.add(_parsed(last))
            except ValueError:
                return found, False
            return found, True
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
        if self._own is not None:
            self._own.append(row)
        if self._file is not None:
            try:
                with self._alone():
                    if _is_at(self._file, self.path):
                        _append(self._file, _line(row))
                    else:  # another process has ended its recording to it
                        self._write()
                        self._open()
            except OSError as error:
                self._release()
                with suppress(Warning):  # this is an engine's thread, and the request is answered
                    warnings.warn(
                        f"llmlab: can't write the recording {self.path} ({error.strerror or error}). What is recorded "
                        "from now on is written at its end; a kernel that is killed before loses it.",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    def get(self, kind: str, model: str, key: str) -> Row | None:
        """The row of a request, or None."""
        return self.rows.get((kind, model, key))

    def of(self, kind: str, model: str | None = None) -> list[Row]:
        """The rows of a kind, of one model or all."""
        return [row for (k, m, _), row in self.rows.items() if k == kind and model in (None, m)]

    def begin(self) -> None:
        """From now on, `add` also writes to the file: what was added is kept when the process is killed.

        Raises:
            DiskError: it can't be written.
        """
        with config.writing(self.path), self._alone():
            if not (self._known and self._is_whole()):
                self._own = list(self.rows.values()) if self._known else None
                self._write()
            self._own = []
            self._open()

    def save(self) -> None:
        """Write the file anew, each row once, with those of other processes; `add` no longer writes to it.

        Raises:
            DiskError: it can't be written.
        """
        self._release()
        with config.writing(self.path), self._alone():
            self._write()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file: other processes that record to it wait before they add a row or write it anew.

        Without locks (on Windows, and in some network file systems) a row is lost if both write at the same time.
        """
        while True:
            file = None
            with suppress(OSError):  # it can't be written, which the block reports
                file = self.path.open("ab") if self.path.is_file() else None
            if file is None:  # or it is a device or a pipe, or there is none yet
                yield
                return
            with file:
                _lock(file)
                if _is_at(file, self.path):
                    yield
                    return

    def _is_whole(self) -> bool:
        """Whether the file ends with a complete line."""
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() == b"\n"
        except OSError:
            return False

    def _write(self) -> None:
        """Write the file anew, each row once. What other processes added since `begin` is kept."""
        if self._own is not None:
            with suppress(BadInputError):  # it was removed, or replaced by something else
                found, _ = Cassette._read(self.path)
                for row in self._own:
                    found.add(row)
                self.rows = found.rows
        head = {"kind": KIND, "version": VERSION, "llmlab": __version__}
        with config.replacing(self.path) as part, part.open("wb") as file:
            file.writelines(map(_line, (head, *self.rows.values())))
        self._known = True

    def _open(self) -> None:
        # Unbuffered: a row is one write, so that those of two processes aren't mixed.
        self._release()
        self._file = self.path.open("ab", buffering=0)

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def _lock(file: BufferedWriter) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:  # a file system without locks
            return


def _is_at(file: FileIO | BufferedWriter, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _append(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) or len(left) :]


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _parsed(line: bytes) -> Any:
    return json.loads(line.decode("utf-8", "surrogatepass"))


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
