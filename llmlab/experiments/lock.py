"""`llmlab.lock`: what an experiment's results depend on, checked before it is run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import config
from llmlab.errors import BadInputError, LlmLabError
from llmlab.experiments.design import Design, make
from llmlab.experiments.experiment import Experiment
from llmlab.experiments.identity import adapter_digest, hardware, versions
from llmlab.experiments.scoring import Scorer, find
from llmlab.experiments.store import digest

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab
    from llmlab.types.progress import Progress

VERSION = 1
_PARTS = ("weights", "tokenizer", "template", "version", "context", "options")


def write(experiment: Experiment, path: Path) -> Path:
    """Write the lock. Arguments and errors as `Experiment.lock`."""
    path = path.expanduser()
    with config.writing(path):
        path.write_text(json.dumps(content(experiment), indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def content(experiment: Experiment) -> dict[str, Any]:
    """The lock in JSON's types."""
    design = experiment.design
    return {
        "lock": VERSION,
        "design": design.as_dict(),
        "models": [one.as_dict() for one in experiment.identities],
        "adapters": {label: adapter_digest(spec, {}) for label, spec in design.adapters.items() if spec is not None},
        "scorers": [{"name": one.name, "digest": one.digest, "config": dict(one.config)} for one in experiment.scorers],
        "versions": versions(),
        "hardware": hardware(),
        "ctx": experiment._ctx,  # noqa: SLF001 - the same package
        "answers": [digest(one.body["text"])[:16] if one.body is not None else None for one in experiment.results],
    }


def from_lock(
    path: str | Path,
    *,
    scorers: Sequence[Any] = (),
    models: Sequence[str | Model] = (),
    lab: Lab,
    fresh: bool = True,
    progress: Progress | None = None,
) -> Experiment:
    """Run a locked experiment again. Arguments and errors as `llmlab.experiment.from_lock`."""
    locked = read(path)
    experiment = Experiment(_design(locked, models), _scorers(locked, scorers), lab=lab, ctx=locked["ctx"])
    experiment.run(fresh=fresh, progress=progress)
    experiment.differences = tuple(differences(locked, content(experiment)))
    return experiment


def read(path: str | Path) -> dict[str, Any]:
    """Read a lock.

    Raises:
        BadInputError: there is no such file, or it isn't a lock.
    """
    place = Path(path).expanduser()
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{place} can't be read: {error.strerror or error}.", "Write one: exp.lock()") from None
    except ValueError:
        found = None
    if not isinstance(found, Mapping) or found.get("lock") != VERSION:
        raise BadInputError(f"{place} isn't a lock of this llmlab.", "Write one: exp.lock()")
    return dict(found)


def differences(locked: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What isn't as it was locked, one sentence each."""
    found = []
    before = {_label(one): one for one in locked["models"]}
    after = {_label(one): one for one in now["models"]}
    for label in dict.fromkeys([*before, *after]):
        if label not in after:
            found.append(f"{label} couldn't be loaded.")
        elif label not in before:
            found.append(f"{label} isn't in the lock.")
        else:
            changed = [part for part in _PARTS if before[label][part] != after[label][part]]
            found += [f"{label}: {_changed(part, before[label][part], after[label][part])}." for part in changed]
    for name in dict.fromkeys([*locked["adapters"], *now["adapters"]]):
        if locked["adapters"].get(name) != now["adapters"].get(name):
            found.append(f"The adapter {name} isn't the same.")
    for kind in ("versions", "hardware"):
        for name in dict.fromkeys([*locked[kind], *now[kind]]):
            one, other = locked[kind].get(name, "none"), now[kind].get(name, "none")
            if one != other:
                found.append(f"{name} was {one}, and is {other}.")
    scorers = {one["name"]: one["digest"] for one in now["scorers"]}
    found += [
        f"The scorer {one['name']} has changed."
        for one in locked["scorers"]
        if scorers.get(one["name"]) not in (None, one["digest"])
    ]
    pairs = list(zip(locked["answers"], now["answers"], strict=False))
    moved = [place for place, (one, other) in enumerate(pairs) if one is not None and one != other]
    if moved:
        found.append(f"{len(moved)} of {len(pairs)} answers differ; the first is row {moved[0]}.")
    return found


def _label(one: Mapping[str, Any]) -> str:
    return f"{one['model']} {one['engine']} {one['quant']}"


def _changed(part: str, before: Any, after: Any) -> str:
    what = {"weights": "the weights", "tokenizer": "the tokenizer", "template": "the chat template"}
    if part in what:
        return f"{what[part]} {'are' if part == 'weights' else 'is'}n't the same"
    return f"its {part} was {before}, and is {after}"


def _design(locked: Mapping[str, Any], models: Sequence[str | Model]) -> Design:
    found = locked["design"]
    given = {key: found[key] for key in ("engines", "quants", "seeds", "repeats")}
    params = {label: {**value} for label, value in found["params"].items()}
    for value in params.values():
        if "logit_bias" in value and value["logit_bias"] is not None:
            value["logit_bias"] = {int(key): bias for key, bias in value["logit_bias"].items()}
    return make(
        found["name"],
        prompts=found["prompts"],
        data=found["data"] if found["data"] != [{}] else None,
        models=list(models) or found["models"],
        adapters=found["adapters"],
        systems=found["systems"],
        params=params,
        constraints=found["constraints"],
        variants=found.get("variants", ()),
        **given,
    )


def _scorers(locked: Mapping[str, Any], given: Sequence[Any]) -> list[Scorer]:
    """The locked scorers: those that are passed, and built-in ones by name.

    Raises:
        BadInputError: a scorer is neither.
    """
    passed = {one.name: one for one in map(find, given)}
    found = []
    for one in locked["scorers"]:
        if one["name"] in passed:
            found.append(passed[one["name"]])
            continue
        try:
            found.append(find(one["name"]))
        except LlmLabError:
            raise BadInputError(
                f"The lock has the scorer {one['name']}, which isn't built in.",
                "Pass it: from_lock(path, scorers=[...])",
            ) from None
    return found
