"""The folder of a job's results: a manifest, and shards of rows that are only ever added, each written atomically."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab.errors import BadInputError, DiskError

VERSION = 1
SHARD_ROWS = 256
SHARD_S = 30.0
"""A shard is written when it has so many rows, or when its first row has waited so long."""
_MANIFEST = "manifest.json"
_NAME = re.compile(r"rows-(\d{10})-(\d{10})-(\d+)f-([0-9a-f]{16})\.jsonl")
# What `config.replacing` leaves behind when the process is killed.
_PART = re.compile(r"\.(rows-|manifest\.).*\.part")
_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """A file with consecutive rows, one JSON object per line.

    Attributes:
        start, end: its first row, and the one after its last.
        failed: how many of them have an error.
        digest: the beginning of the digest of all input rows up to its last.
    """

    path: Path
    start: int
    end: int
    failed: int
    digest: str


class Output:
    """A job's folder. One process at a time writes to it (`claimed`).

    Args:
        path: the folder; it is created at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None

    # -- reading -------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """What the job is; None for a folder without one.

        Raises:
            BadInputError: the folder has other files, or another version's job.
        """
        file = self.path / _MANIFEST
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            others = [one.name for one in self._files() if one.name != ".lock"]
            if others:
                raise BadInputError(
                    f"{self.path} has other files ({', '.join(sorted(others)[:3])}).", "Give a new folder as output="
                ) from None
            return None
        except (OSError, ValueError) as error:
            raise BadInputError(f"{file} can't be read: {error}.", "Give another folder as output=") from None
        if not isinstance(found, dict) or found.get("job") != VERSION:
            raise BadInputError(f"{file} isn't a job of this llmlab.", "Give another folder as output=")
        return found

    def shards(self) -> list[Shard]:
        """The shards, in the rows' order.

        Raises:
            DiskError: the folder can't be read, or rows are missing between two shards, or are there twice.
        """
        found = []
        for file in self._files():
            match = _NAME.fullmatch(file.name)
            if match is not None:
                start, end, failed = (int(part) for part in match.groups()[:3])
                found.append(Shard(file, start, end, failed, match.group(4)))
        found.sort(key=lambda one: one.start)
        expected = 0
        for one in found:
            if one.start != expected:
                raise DiskError(
                    f"{self.path} doesn't have the rows from {min(expected, one.start):,} on exactly once: "
                    f"{one.path.name} was added or another file removed.",
                    "Restore the files, or begin again: fresh=True",
                )
            expected = one.end
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that are written, in order."""
        for shard in self.shards():
            with config.writing(shard.path, action="be read"), shard.path.open("rb") as file:
                for line in file:
                    yield json.loads(line)

    def _files(self) -> list[Path]:
        with config.writing(self.path, action="be read"):
            return list(self.path.iterdir()) if self.path.is_dir() else []

    # -- writing -------------------------------------------------------------------------------

    def claim(self) -> None:
        """Keep other processes from writing to the folder until `release`, or the end of this process.

        Raises:
            BadInputError: another one does.
        """
        import filelock

        with config.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.path / ".lock")
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                self._lock = None
                raise BadInputError(
                    f"Another job is writing to {self.path}.", "Wait for its end, or give another output="
                ) from None

    def release(self) -> None:
        """Let other processes write to the folder."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def clear(self) -> None:
        """Delete the job's own files, and no others."""
        with config.writing(self.path, action="be emptied"):
            (self.path / _MANIFEST).unlink(missing_ok=True)
            self.sweep()
            for file in list(self.path.iterdir()):
                if _NAME.fullmatch(file.name):
                    file.unlink()

    def sweep(self) -> None:
        """Delete the files that a killed job was writing. Only while the folder is claimed."""
        for file in list(self.path.iterdir()):
            if _PART.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def describe(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest."""
        text = json.dumps({"job": VERSION, **manifest}, indent=1, ensure_ascii=False)
        self._write(_MANIFEST, text)

    def add(self, start: int, lines: list[str], failed: int, digest: str) -> None:
        """Write a shard; it is on the disk when this returns, complete or not at all.

        Args:
            start: the first row.
            lines: the rows as JSON.
            failed: how many have an error.
            digest: the digest of the input up to the last row.
        """
        end = start + len(lines)
        name = f"rows-{start:010d}-{end:010d}-{failed}f-{digest[:_DIGEST]}.jsonl"
        self._write(name, "".join(line + "\n" for line in lines))

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        with config.writing(path), config.replacing(path, durable=True) as part:
            part.write_bytes(text.encode("utf-8", "surrogatepass"))


def same_rows(shard: Shard, digest: str) -> bool:
    """Whether a shard's last row belongs to data with this digest."""
    return digest.startswith(shard.digest)


@dataclass
class Writer:
    """Puts finished rows in order, and writes them in shards.

    Args:
        output: the folder, claimed.
        next: the first row that isn't written.
    """

    output: Output
    next: int = 0
    rows: int = SHARD_ROWS
    every_s: float = SHARD_S
    failed: int = 0
    _waiting: dict[int, tuple[str, str, bool]] = field(default_factory=dict)
    _ready: list[tuple[str, str, bool]] = field(default_factory=list)
    _since: float = 0.0

    @property
    def finished(self) -> int:
        """How many rows have an answer or an error."""
        return self.next + len(self._waiting)

    def put(self, index: int, record: Mapping[str, Any], digest: str) -> None:
        """Take a finished row; rows may come in any order."""
        error = bool(record["error"])
        self.failed += error
        self._waiting[index] = (json.dumps(record, ensure_ascii=False), digest, error)
        while self.next in self._waiting:
            if not self._ready:
                self._since = time.monotonic()
            self._ready.append(self._waiting.pop(self.next))
            self.next += 1
            if len(self._ready) >= self.rows:
                self.flush()

    def tick(self) -> None:
        """Write what has waited for long."""
        if self._ready and time.monotonic() - self._since >= self.every_s:
            self.flush()

    def flush(self) -> None:
        """Write all rows before the first unfinished one."""
        ready, self._ready = self._ready, []
        if ready:
            lines = [line for line, _, _ in ready]
            self.output.add(self.next - len(ready), lines, sum(bad for _, _, bad in ready), ready[-1][1])
