"""The load plan of a model that answers from recorded answers: no files are looked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmlab.engines.base import LoadPlan
from llmlab.engines.registry import REPLAY
from llmlab.engines.replay import tape
from llmlab.engines.replay.cassette import Cassette, Row
from llmlab.engines.replay.engine import find_attached, find_model
from llmlab.engines.replay.recording import Recorder
from llmlab.files.source import Source
from llmlab.loading.plan import DEFAULT_CONCURRENCY, Planned


def given(
    *, engine: str, quant: str | None, ctx: int | None, draft: str | None, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The options of a load that were given and that decide what a model answers. Arguments as `Lab.load`."""
    found = {"quant": quant, "ctx": ctx, "draft": draft, "extra": dict(extra or {})}
    return {name: value for name, value in found.items() if value} | ({"engine": engine} if engine != "auto" else {})


def planned(spec: str, asked: Mapping[str, Any]) -> Planned | None:
    """The plan of a load while answers are replayed; None while they aren't.

    Args:
        spec: the model spec.
        asked: the options of the load that were given.

    Raises:
        NotRecordedError: the model wasn't recorded.
    """
    cassette = tape.replayed()
    if cassette is None:
        return None
    return _planned(cassette, spec, find_model(cassette, spec, dict(asked)))


def attached(name: str | None, model_id: str | None) -> Planned | None:
    """The plan of an attachment while answers are replayed: no server is asked. None while they aren't.

    Args:
        name: the model's name in the lab, if it is given.
        model_id: its id on the server, if it is given.

    Raises:
        NotRecordedError: it wasn't recorded.
    """
    cassette = tape.replayed()
    if cassette is None:
        return None
    row = find_attached(cassette, name, model_id)
    return _planned(cassette, row["spec"], row)


def _planned(cassette: Cassette, spec: str, row: Row) -> Planned:
    source = Source(spec, row["name"], "api", Path(os.devnull), row["quant"])
    extra = {**row["extra"], "cassette": cassette, "recorded": row}
    plan = LoadPlan(source, row["context"], max_concurrency=DEFAULT_CONCURRENCY, extra=extra)
    return Planned(REPLAY, f"replayed from {cassette.path.name}, recorded on {row['engine']}", plan, None)


@contextlib.contextmanager
def recording(path: Path, *, fresh: bool = False) -> Iterator[Recorder]:
    """Record in the block. Raises as `llmlab.record_answers`."""
    recorder = Recorder(path, fresh=fresh)
    tape.start(recorder)
    try:
        yield recorder
    finally:
        tape.stop()


@contextlib.contextmanager
def playing(path: Path) -> Iterator[Cassette]:
    """Replay in the block. Raises as `llmlab.replay_answers`."""
    cassette = Cassette.read(path)
    tape.start(cassette)
    try:
        yield cassette
    finally:
        tape.stop()
