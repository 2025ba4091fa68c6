"""The short measurement of `--measure`: each candidate engine, at the requested concurrency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llmlab.advice.candidates import Option
from llmlab.advice.result import Reason, Use
from llmlab.engines.registry import check_name
from llmlab.errors import LoadError
from llmlab.loading.switch import bare_spec
from llmlab.measure.speed import BenchResult, Point, bench, percentile
from llmlab.render import units
from llmlab.session import Lab
from llmlab.types import EngineName
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model

PROMPT_TOKENS = 64
MAX_TOKENS = 32
ROUNDS = 3
# Results within this ratio count as equal, since other programs may use the machine.
NOISE = 1.25
# With this ratio in the first round, no more are needed.
CLEAR = 2.0


def measure(
    lab: Lab, use: Use, options: Sequence[Option], progress: Progress
) -> tuple[BenchResult | None, list[Reason], EngineName | None, dict[EngineName, str]]:
    """Load the candidates that aren't loaded, measure all in alternation, and unload them.

    Args:
        lab: the user's session; a matching loaded model is measured as it is.
        use: the workload.
        options: the engines that can do it.
        progress: called with (phase, fraction done or None).

    Returns:
        The measurement (None if nothing could be loaded), its reasons, the engine that is faster beyond the noise
        (or None), and the engines that failed to load the model, with the error.
    """
    own = Lab()
    failed: dict[EngineName, str] = {}
    models: list[Model] = []
    try:
        for option in options:
            assert option.form is not None
            matching = _matching(lab, use, option)
            if matching is not None:
                models.append(matching)
                continue
            try:
                models.append(_load(own, use, option, progress))
            except LoadError as error:
                failed[option.engine] = error.message
        if not models:
            return None, [], None, failed
        found = _bench(models, use, progress, rounds=1)
        if not _is_clear(found):
            found = _bench(models, use, progress, rounds=ROUNDS)
        reasons = _reasons(found, use)
        loaded = {model.engine: model.load_s for model in models if model.name in own.models}
        if len(loaded) > 1:
            text = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in loaded.items())
            best = min(loaded, key=lambda name: loaded[name])
            reasons.append(Reason("measured: load time", text, check_name(best), "helps"))
        quicker = next((reason.engine for reason in reasons if reason.strength == "decides"), None)
        return found, reasons, quicker, failed
    finally:
        own.close()


def _bench(models: Sequence[Model], use: Use, progress: Progress, rounds: int) -> BenchResult:
    return bench(
        *models,
        concurrency=[use.concurrency],
        prompt_tokens=PROMPT_TOKENS,
        max_tokens=MAX_TOKENS,
        rounds=rounds,
        progress=progress,
    )


def _is_clear(found: BenchResult) -> bool:
    speeds = [point.tokens_per_s for point in found.points]
    return len(speeds) == 1 or max(speeds) > CLEAR * min(speeds)


def _load(own: Lab, use: Use, option: Option, progress: Progress) -> Model:
    assert option.form is not None
    return own.load(
        bare_spec(use.model),
        engine=option.engine,
        quant=option.form.quant,
        name=option.engine,
        tp=option.parallel.tensor,
        pp=option.parallel.pipeline,
        max_concurrency=use.concurrency if option.explicit else None,
        progress=progress,
    )


def _matching(lab: Lab, use: Use, option: Option) -> Model | None:
    """A loaded model that matches, with at least the requested concurrency."""
    assert option.form is not None
    for model in lab.models.values():
        same = bare_spec(model.source.spec) == bare_spec(use.model) and model.quant == option.form.quant
        if same and model.engine == option.engine and model.plan.max_concurrency >= use.concurrency:
            return model
    return None


def _reasons(found: BenchResult, use: Use) -> list[Reason]:
    first, *others = sorted(found.points, key=lambda point: -point.tokens_per_s)
    at = "one request at a time" if use.concurrency == 1 else f"concurrency {use.concurrency}"
    rounds = "1 round" if found.rounds == 1 else f"median of {found.rounds} rounds"
    how = f"{PROMPT_TOKENS} prompt and {MAX_TOKENS} output tokens, {rounds}"
    speeds = ", ".join(f"{point.engine} {units.speed(point.tokens_per_s)}" for point in (first, *others))
    what = f"measured: throughput, {at}"
    if not others:
        return [Reason(what, f"{speeds} ({how})")]
    second = others[0]
    ratio = first.tokens_per_s / second.tokens_per_s
    clear = max(NOISE, first.spread, second.spread)
    if ratio > clear:
        speed = Reason(what, f"{speeds}: {ratio:.1f} times ({how})", check_name(first.engine), "decides")
    else:
        speed = Reason(what, f"{speeds}: {ratio:.2f} times, within the noise ({clear:.2f} times; {how})")
    reasons = [speed, _less(found.points, "TTFT p50", _ttft, "ms")]
    if all(point.memory is not None for point in found.points):
        reasons.append(_less(found.points, "memory", _memory, "MB"))
    return reasons


def _less(points: Sequence[Point], what: str, value: Callable[[Point], float], unit: str) -> Reason:
    low, high = sorted(points, key=value)[:2]
    text = ", ".join(f"{point.engine} {value(point):,.3g} {unit}" for point in (low, high))
    clear = value(high) > value(low) * max(NOISE, low.spread, high.spread)
    return Reason(f"measured: {what}", text, check_name(low.engine) if clear else None, "helps" if clear else "note")


def _ttft(point: Point) -> float:
    return percentile(point.ttft_ms, 50)


def _memory(point: Point) -> float:
    return (point.memory or 0) / 1e6
