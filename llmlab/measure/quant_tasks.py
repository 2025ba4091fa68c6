"""lm-eval's tasks in a comparison of quants: kept per variant, and compared in pairs of items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.statistics import Paired, paired
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model


def key(tasks: Sequence[str | Path], limit: int | None) -> str:
    """What the scores depend on beside the model: the tasks, the files of local ones, and the limit."""
    from llmlab.evaluation import tasks as places

    own = places.included()
    named = []
    for task in tasks:
        path = own.get(str(task), Path(task).expanduser())
        folder = path.parent if path.is_file() else path
        files = sorted(one for one in folder.rglob("*") if one.is_file()) if path.exists() else []
        named.append([str(task), [hashlib.sha256(one.read_bytes()).hexdigest() for one in files]])
    return hashlib.sha256(json.dumps([named, limit]).encode()).hexdigest()[:16]


def scores(model: Model, tasks: Sequence[str | Path], limit: int | None, report: Progress) -> list[dict[str, Any]]:
    """A model's scores, in JSON's types. Raises as `llmlab.evaluate`."""
    from llmlab.evaluation import evaluate

    found = evaluate(model, list(tasks), adapter=None, limit=limit, progress=report)
    return [
        {
            "name": " ".join(part for part in (one.task, one.metric) if part),
            "value": one.value,
            "low": one.estimate.low,
            "high": one.estimate.high,
            "n": one.estimate.n,
            "values": list(one.values),
            "items": list(one.items),
        }
        for one in found.scores
    ]


def of(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A row's task scores by name."""
    return {one["name"]: one for one in row.get("tasks") or ()}


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The task scores that any row has, in order."""
    return list(dict.fromkeys(name for row in rows for name in of(row)))


def columns(row: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The columns of a row: value, ends of the interval, and number of items."""
    own = of(row)
    found: dict[str, Any] = {}
    for name in known:
        one = own.get(name, {})
        found |= {name: one.get("value"), f"{name}_low": one.get("low"), f"{name}_high": one.get("high")}
        found[f"{name}_n"] = one.get("n", 0)
    return found


def pairs(row: Mapping[str, Any], first: Mapping[str, Any]) -> list[tuple[str, Paired]]:
    """Each task score compared with the reference's, on the same items."""
    theirs = of(first)
    return [
        (name, paired(one["values"], theirs[name]["values"]))
        for name, one in of(row).items()
        if one["values"] and name in theirs and theirs[name]["items"] == one["items"]
    ]
