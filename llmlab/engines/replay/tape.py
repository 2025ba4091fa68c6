"""Whether this process records or replays answers. `LLMLAB_RECORD` and `LLMLAB_REPLAY` name a file to begin with."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

from llmlab.engines.replay.cassette import Cassette
from llmlab.engines.replay.recording import Recorder
from llmlab.errors import BadInputError

RECORD, REPLAY = "LLMLAB_RECORD", "LLMLAB_REPLAY"

_lock = threading.Lock()
_current: list[Recorder | Cassette] = []
_begun = [False]


def current() -> Recorder | Cassette | None:
    """The recorder or the recorded answers in use; None: models answer, and nothing is recorded."""
    if not _begun[0]:
        _begin()
    return _current[-1] if _current else None


def recorder() -> Recorder | None:
    """The recorder in use, or None."""
    found = current()
    return found if isinstance(found, Recorder) else None


def replayed() -> Cassette | None:
    """The recorded answers in use, or None."""
    found = current()
    return found if isinstance(found, Cassette) else None


def start(tape: Recorder | Cassette) -> None:
    """Record, or replay, from now on.

    Raises:
        BadInputError: this process records or replays already.
        DiskError: the recording can't be written.
    """
    found = current()
    if found is not None:
        path = found.cassette.path if isinstance(found, Recorder) else found.path
        raise BadInputError(f"Answers are {'recorded to' if isinstance(found, Recorder) else 'replayed from'} {path}.",
            "End that first: %llm replay off",
        )  # fmt: skip
    if isinstance(tape, Recorder):
        tape.begin()
    with _lock:
        _current.append(tape)


def stop() -> Recorder | Cassette | None:
    """Record or replay no longer. Returns what has ended, or None.

    Raises:
        DiskError: the recording can't be written.
    """
    current()
    with _lock:
        found = _current.pop() if _current else None
    if isinstance(found, Recorder):
        found.save()
    return found


def _begin() -> None:
    """Begin with what the environment says."""
    _begun[0] = True
    record, replay = os.environ.get(RECORD), os.environ.get(REPLAY)
    if record and replay:
        raise BadInputError(f"Both {RECORD} and {REPLAY} are set.", "Unset one.")
    if record:
        start(Recorder(Path(record)))
        atexit.register(stop)
    elif replay:
        start(Cassette.read(Path(replay)))
