"""`llmlab.evaluate`: lm-eval's tasks on a loaded model, without lm-eval's own loading of models."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab._hooks import hooks
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.evaluation import tasks as places
from llmlab.evaluation.results import TARGET, Evaluation, Score
from llmlab.statistics import Estimate, mean
from llmlab.statistics.estimates import NOTHING, bootstrap
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model

INSTALL = "pip install 'llmlab[evals]'"
# lm-eval's own seeds: of few-shot examples, and of tasks that draw from Python's and numpy's generators.
_SHOTS_SEED, _SEED, _NUMPY_SEED = 1234, 0, 1234


def evaluate(
    model: Model,
    tasks: str | Path | Sequence[str | Path],
    *,
    adapter: str | None,
    shots: int | None = None,
    limit: int | None = None,
    chat: bool = False,
    system: str | None = None,
    include: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model. Arguments and errors as `llmlab.evaluate`; `adapter` is a spec, or None for the base model."""
    _check(shots, limit)
    try:
        _imports.load("lm_eval.evaluator", "llmlab.evaluation.harness")
    except ImportError as error:
        raise EngineMissingError(f"Evaluations need lm-eval ({error}).", INSTALL) from error
    from llmlab.evaluation.harness import HarnessModel

    named = [tasks] if isinstance(tasks, str | Path) else list(tasks)
    notes: list[str] = []
    with hooks.progress(f"evaluating {model.name}", progress) as report, _quiet(notes), _seeded():
        report("tasks", None)
        found = places.find(named, include)
        for task in found.tasks.values():
            _prepare(task, shots)
        count = [1]
        asked = HarnessModel(model, adapter, lambda done: report(f"{done:,} requests", min(done / count[0], 1.0)))
        results = _evaluate(asked, found, count, limit=limit, chat=chat, system=system)
    about = {
        "lm_eval": importlib.metadata.version("lm_eval"),
        "engine": model.engine,
        "quant": model.quant,
        "adapter": adapter,
        "shots": shots,
        "limit": limit,
        "chat": chat,
        "system": system,
        "versions": dict(results["versions"]),
    }
    if model.score_note:
        notes.append(f"{model.engine}: {model.score_note}.")
    label = " ".join(part for part in (model.name, model.quant, f"with {adapter}" if adapter else "") if part)
    scores = tuple(_scores(found, results))
    return Evaluation(label, scores, about, results["samples"], tuple(dict.fromkeys(notes)))


def _check(shots: int | None, limit: int | None) -> None:
    for name, value, low in (("shots", shots, 0), ("limit", limit, 1)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise BadInputError(f"{name} must be an integer, {low} or more, got {value!r:.40}.")


def _prepare(task: Any, shots: int | None) -> None:
    """The few-shot settings, as lm-eval's own command line makes them."""
    own = task.get_config("num_fewshot")
    if shots is not None and own != 0:
        task.set_config(key="num_fewshot", value=shots)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_SHOTS_SEED)


def _evaluate(
    asked: Any, found: places.Found, count: list[int], *, limit: int | None, chat: bool, system: str | None
) -> dict[str, Any]:
    from lm_eval import evaluator

    own: dict[str, Any] = {"tasks": dict(found.tasks), "groups": dict(found.groups)}
    for task in found.tasks.values():
        build = task.build_all_requests

        def counted(*args: Any, _build: Any = build, _task: Any = task, **options: Any) -> None:
            _build(*args, **options)
            built[0] += sum(one.repeats for one in _task.instances)
            count[0] = max(built[0], 1)

        task.build_all_requests = counted
    built = [0]
    results: dict[str, Any] = evaluator.evaluate(
        lm=asked,
        task_dict=own,
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=system,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    return results


# -- scores ------------------------------------------------------------------------------------


def _scores(found: places.Found, results: Mapping[str, Any]) -> Iterator[Score]:
    """Every metric that lm-eval reports, with an interval over the items."""
    better = results["higher_is_better"]
    for name, metrics in results["results"].items():
        items = results["samples"].get(name)
        for key, value in metrics.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            higher = (better.get(name) or {}).get(metric)
            direction = "" if higher is None else "higher" if higher else "lower"
            if items is None:
                pooled = [one for task in _members(found, name) for one in results["samples"].get(task, ())]
                yield _pooled(name, metric, chosen, float(value), direction, pooled)
                continue
            own = [one for one in items if one["filter"] == chosen]
            yield _score(found.tasks[name], metric, chosen, float(value), direction, own)
        if items:
            yield from _target(name, items)


def _members(found: places.Found, group: str) -> list[str]:
    return [one.task_name for one in found.groups[group].get_all_tasks()] if group in found.groups else []


def _score(task: Any, metric: str, chosen: str, value: float, better: str, items: Sequence[Any]) -> Score:
    values = [one[metric] for one in items if metric in one]
    name = task.config.task
    digests = tuple(str(one["doc_hash"]) for one in items)
    if len(values) == len(items) and all(isinstance(one, int | float) for one in values):
        own = tuple(float(one) for one in values)
        estimate = mean(own)
        if math.isclose(estimate.value, value, rel_tol=1e-9, abs_tol=1e-12):
            return Score(name, metric, chosen, estimate, better, own, digests)
    return Score(name, metric, chosen, _resampled(task, metric, value, values), better)


def _resampled(task: Any, metric: str, value: float, values: Sequence[Any]) -> Estimate:
    """lm-eval's aggregate of items that aren't averaged (F1, perplexity), with a bootstrap interval over them."""
    _imports.load("numpy")
    import numpy as np

    aggregate = task.aggregation()[metric]

    def statistic(rows: Any, axis: int = -1) -> Any:
        return np.apply_along_axis(lambda row: aggregate([values[int(place)] for place in row]), axis, rows)

    found = bootstrap(list(range(len(values))), statistic) if values else NOTHING
    return Estimate(value, found.low, found.high, len(values))


def _pooled(name: str, metric: str, chosen: str, value: float, better: str, items: Sequence[Any]) -> Score:
    """A group's score: with an interval where it is the mean over all of its tasks' items."""
    values = [one[metric] for one in items if one["filter"] == chosen and metric in one]
    if values and all(isinstance(one, int | float) for one in values):
        estimate = mean([float(one) for one in values])
        if math.isclose(estimate.value, value, rel_tol=1e-6, abs_tol=1e-9):
            return Score(name, metric, chosen, estimate, better)
    return Score(name, metric, chosen, Estimate(value, math.nan, math.nan, len(values)), better)


def _target(name: str, items: Sequence[Mapping[str, Any]]) -> Iterator[Score]:
    """The log-likelihood of the right choice, for tasks whose items have one."""
    own = [one for one in items if one["filter"] == items[0]["filter"]]
    values = []
    for one in own:
        target, said = one["target"], one["filtered_resps"]
        choices = not isinstance(target, bool) and isinstance(target, int) and 0 <= target < len(said)
        if len(said) < 2 or not choices or not isinstance(said[target], tuple | list):
            return
        values.append(float(said[target][0]))
    digests = tuple(str(one["doc_hash"]) for one in own)
    yield Score(name, TARGET, str(own[0]["filter"]), mean(values), "higher", tuple(values), digests)


# -- what lm-eval leaves behind ------------------------------------------------------------------


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """lm-eval's seeds inside; afterwards, the states of Python's and numpy's generators as they were."""
    _imports.load("numpy")
    import numpy as np

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the generator that tasks draw from
    random.seed(_SEED)
    np.random.seed(_NUMPY_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class _Notes(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(f"lm-eval: {' '.join(record.getMessage().split())}")


@contextlib.contextmanager
def _quiet(notes: list[str]) -> Iterator[None]:
    """Keep lm-eval's warnings as notes, and its progress bars to itself: llmlab shows one."""
    import lm_eval.api.task as building
    from tqdm import tqdm

    logger, handler = logging.getLogger("lm_eval"), _Notes(notes)
    passed, bar = logger.propagate, building.tqdm
    logger.addHandler(handler)
    logger.propagate = False
    building.tqdm = lambda *args, **options: tqdm(*args, **{**options, "disable": True})
    try:
        yield
    finally:
        building.tqdm = bar
        logger.propagate = passed
        logger.removeHandler(handler)
