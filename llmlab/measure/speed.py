"""Speed of loaded models: throughput and latency by concurrency."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab._hooks import one_display
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.measure.prompts import SamePrompt, of_streams
from llmlab.statistics import Estimate, median
from llmlab.types import Completion

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.model import Model

CONCURRENCY = (1, 2, 4, 8, 16)
PROMPT_TOKENS = 128
MAX_TOKENS = 64
ROUNDS = 3
COLUMNS = {
    "model": "model",
    "engine": "engine",
    "quant": "quant",
    "concurrency": "concurrency",
    "tokens_per_s": "tokens/s",
    "tokens_per_s_low": "low",
    "tokens_per_s_high": "high",
    "ttft_p50_ms": "TTFT p50 (ms)",
    "ttft_p95_ms": "TTFT p95 (ms)",
    "tpot_p50_ms": "per token p50 (ms)",
    "tpot_p95_ms": "per token p95 (ms)",
    "memory_mb": "memory (MB)",
}
"""The columns of the benchmark table, and their displayed names."""
_seeds = itertools.count(20)
_WORDS = ("river", "stone", "amber", "cloud", "seven", "garden", "engine", "silver", "winter", "letter", "number")


@dataclass(frozen=True, slots=True)
class Point:
    """One model at one concurrency.

    Attributes:
        speed: generated tokens of all requests per second of wall-clock time, from the first submission to the
            last token, including prompt processing; the median of the rounds, with its interval. `spread`: fastest /
            slowest round.
        ttft_ms, tpot_ms: for every request of every round, in milliseconds: time to first token; mean time per
            further token.
        memory: growth of the engine's process with the model, in bytes, with the KV cache; None if the driver
            doesn't report it.
    """

    model: str
    engine: str
    quant: str
    concurrency: int
    speed: Estimate
    spread: float
    ttft_ms: tuple[float, ...]
    tpot_ms: tuple[float, ...]
    memory: int | None

    @property
    def tokens_per_s(self) -> float:
        """The median speed in tokens/s."""
        return self.speed.value


@dataclass(frozen=True)
class BenchResult:
    """The result of `bench`. Displayed as a table in a notebook; `plot()` is a chart, `frame` the data.

    Attributes:
        prompt_tokens, max_tokens, rounds: the settings: prompt and answer lengths in tokens, repetitions.
        waiting: models that decode fewer sequences at once than requested, so that the others were queued.
        ended: models whose server can't go past the end of the turn.
        prompts: whether the first model and each of the others read the same prompt for the same text.

    Example:
        >>> measured = llmlab.measure.bench(model, concurrency=[1], prompt_tokens=16, max_tokens=8, rounds=1)
        >>> bool(measured.frame["tokens_per_s"][0] > 0)
        True
    """

    points: tuple[Point, ...]
    prompt_tokens: int
    max_tokens: int
    rounds: int
    waiting: dict[str, int] = field(default_factory=dict)
    prompts: tuple[SamePrompt, ...] = ()
    ended: tuple[str, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """One row per model and concurrency, with tokens/s, TTFT and time per token (p50, p95, ms), memory (MB)."""
        _imports.load("pandas")
        import pandas as pd

        rows = [
            {
                "model": p.model,
                "engine": p.engine,
                "quant": p.quant,
                "concurrency": p.concurrency,
                "tokens_per_s": _rounded(p.tokens_per_s),
                "tokens_per_s_low": _rounded(p.speed.low),
                "tokens_per_s_high": _rounded(p.speed.high),
                "spread": round(p.spread, 2),
                "ttft_p50_ms": round(percentile(p.ttft_ms, 50), 2),
                "ttft_p95_ms": round(percentile(p.ttft_ms, 95), 2),
                "tpot_p50_ms": round(percentile(p.tpot_ms, 50), 3),
                "tpot_p95_ms": round(percentile(p.tpot_ms, 95), 3),
                "memory_mb": round(p.memory / 1e6) if p.memory is not None else None,
            }
            for p in self.points
        ]
        return pd.DataFrame(rows)

    @property
    def note(self) -> str:
        """A short definition of the columns, with warnings."""
        text = (
            f"{self.prompt_tokens} prompt tokens, {self.max_tokens} output tokens (greedy, end of turn ignored), "
            f"median of {self.rounds} rounds. tokens/s: generated tokens of all requests, including prompt time."
        )
        if self.rounds > 1 and self.points:
            sure = self.points[0].speed.confidence
            text += f" low, high: the median's {100 * sure:.0f} % interval"
            text += ", the range of the rounds." if self.rounds < 6 else "."
        noisiest = max((p.spread for p in self.points), default=1.0)
        if noisiest > 1.5:
            text += f" The machine was busy: the fastest round was up to {noisiest:.1f} times the slowest."
        for name, most in self.waiting.items():
            text += f" {name} decodes {most} sequences at once (--max-concurrency); further requests were queued."
        for name in self.ended:
            text += f" {name} ends its answers itself, before {self.max_tokens} tokens: its server has no ignore_eos."
        for found in self.prompts:
            if not found.same:
                text += f" {found.line}"
        return text

    def plot(self) -> Any:
        """Throughput and latency against concurrency, side by side.

        Returns:
            An altair chart.

        Example:
            >>> measured = llmlab.measure.bench(model, concurrency=[1, 2], prompt_tokens=16, max_tokens=8, rounds=1)
            >>> type(measured.plot()).__name__
            'HConcatChart'
        """
        _imports.load("altair")
        import altair as alt

        data = self.frame
        names = data["model"].nunique()
        data["what"] = data["model"] + " (" + data["engine"] + ", " + data["quant"] + ")"
        base = alt.Chart(data).encode(
            x=alt.X("concurrency:Q", title="concurrency", axis=alt.Axis(values=sorted(set(data["concurrency"])))),
            color=alt.Color("what:N", title="model", legend=alt.Legend(orient="bottom") if names > 1 else None),
            tooltip=list(data.columns.drop("what")),
        )

        def line(column: str, title: str) -> Any:
            drawn = base.encode(y=alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=True)))
            return drawn.mark_line(point=True).properties(width=260, height=220)

        return (
            line("tokens_per_s", "tokens/s, all requests")
            | line("ttft_p50_ms", "TTFT p50, ms")
            | line("tpot_p50_ms", "time per output token p50, ms")
        )

    def __repr__(self) -> str:
        return f"{self._shown().to_string(index=False)}\n{self.note}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self._shown().to_html(index=False, border=0, justify="left")
        return f'<div class="llmlab">{table}<div style="opacity:.7">{escape(self.note)}</div></div>'

    def _shown(self) -> pd.DataFrame:
        return self.frame[list(COLUMNS)].rename(columns=COLUMNS)


def bench(
    *models: Model,
    concurrency: Sequence[int] = CONCURRENCY,
    prompt_tokens: int = PROMPT_TOKENS,
    max_tokens: int = MAX_TOKENS,
    rounds: int = ROUNDS,
    progress: Callable[[str, float | None], None] | None = None,
) -> BenchResult:
    """Measure loaded models: throughput, TTFT, time per output token and memory, by concurrency.

    Several models are measured in alternation (A B A B), so that a change in the machine's speed affects all of them.
    All prompts differ from their first token on, also between calls, so no prefix is reused.

    Args:
        *models: loaded models.
        concurrency: numbers of concurrent requests, measured one after the other.
        prompt_tokens: approximate prompt length.
        max_tokens: output length; the end of turn is ignored.
        rounds: repetitions; the median is reported.
        progress: called with (phase, fraction done).

    Returns:
        The measurements: `.frame` (one row per model and concurrency), `.plot()`.

    Raises:
        BadInputError: no model, invalid numbers, or more tokens than a model's context.
        Interrupted: Ctrl-C.

    Example:
        >>> measured = llmlab.measure.bench(model, concurrency=[1, 2], prompt_tokens=16, max_tokens=8, rounds=1)
        >>> list(measured.frame["concurrency"])
        [1, 2]
    """
    if not models:
        raise BadInputError("There is no model to measure.", "Load one: %llm load nano")
    for name, value in (("prompt_tokens", prompt_tokens), ("max_tokens", max_tokens), ("rounds", rounds)):
        if value < 1:
            raise BadInputError(f"{name} must be 1 or more, got {value}.")
    if not concurrency or min(concurrency) < 1:
        raise BadInputError(f"concurrency must be 1 or more, got {list(concurrency)}.", "For example 1,2,4,8")
    for model in models:
        if prompt_tokens + max_tokens > model.facts.context_length:
            raise BadInputError(
                f"{prompt_tokens} prompt tokens and {max_tokens} output tokens don't fit into {model.name}'s context "
                f"of {model.facts.context_length}.",
                "Use fewer, or load it with a larger --ctx.",
            )
    report = progress or (lambda _what, _share: None)
    gate = _gate(models, max_tokens) if len(models) > 1 else ()
    numbers = sorted(set(concurrency))
    seed = next(_seeds)
    prompts = {id(m): _Prompts(m, prompt_tokens, seed) for m in models}
    found: dict[tuple[int, int], list[_Round]] = {}
    for model in models:
        report(f"{model.name}: warm-up", 0.0)
        _run(model, prompts[id(model)].take(min(max(numbers), 2)), min(max_tokens, 16))
    total, done = rounds * len(models) * sum(numbers), 0
    for _ in range(rounds):
        for number in numbers:
            for place, model in enumerate(models):
                report(f"{model.name}: concurrency {number}", done / total)
                taken = _run(model, prompts[id(model)].take(number), max_tokens)
                found.setdefault((place, number), []).append(taken)
                done += number
    report("done", 1.0)
    points = [_point(model, number, found[place, number]) for place, model in enumerate(models) for number in numbers]
    ended = tuple(model.name for model in models if "ignore_eos" not in _options(model, max_tokens))
    waiting = {m.name: m.plan.max_concurrency for m in models if m.plan.max_concurrency < numbers[-1]}
    return BenchResult(tuple(points), prompt_tokens, max_tokens, rounds, waiting, gate, ended)


def _gate(models: Sequence[Model], max_tokens: int) -> tuple[SamePrompt, ...]:
    """The same-prompt gate, on a text like those of the measurement."""
    text = " ".join(_WORDS)
    return tuple(of_streams([model.stream(text, **_options(model, max_tokens)) for model in models]))


def percentile(values: Iterable[float], percent: float) -> float:
    """A percentile by linear interpolation between the two nearest ranks (numpy's default); NaN for no values."""
    _imports.load("numpy")
    import numpy as np

    found = list(values)
    return float(np.percentile(found, percent)) if found else float("nan")


@dataclass(frozen=True, slots=True)
class _Round:
    seconds: float
    answers: tuple[Completion, ...]

    @property
    def speed(self) -> float:
        return sum(one.usage.completion_tokens for one in self.answers) / self.seconds


class _Prompts:
    """Unique texts of about a given number of tokens; the same for every model with the same seed."""

    def __init__(self, model: Model, tokens: int, seed: int) -> None:
        self._model, self._tokens = model, tokens
        self._random = random.Random(seed)  # noqa: S311 - for variety
        try:
            self._per_word = max(model.count_tokens(" ".join(_WORDS)) / len(_WORDS), 0.5)
            self._exact = model.url is None
        except UnsupportedError:  # a server without a route for token ids
            self._per_word, self._exact = 1.3, False

    def take(self, count: int) -> list[str]:
        return [self._one() for _ in range(count)]

    def _one(self) -> str:
        words = [str(self._random.randrange(10**6)), *self._random.choices(_WORDS, k=self._tokens)]
        size = max(int(self._tokens / self._per_word), 1)
        text = " ".join(words[:size])
        while self._exact and size > 1 and self._model.count_tokens(text) > self._tokens:
            size -= 1
            text = " ".join(words[:size])
        return text


def _options(model: Model, max_tokens: int) -> dict[str, Any]:
    """Options: greedy, a raw prompt, on past the end token; without those that the model's server refuses."""
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens}
    if model.url is None:
        return {**options, "raw": True, "ignore_eos": True}
    for name in ("raw", "ignore_eos"):
        more = {**options, name: True}
        try:
            model.stream("a", **more)  # checked, not started
        except UnsupportedError:
            continue
        options = more
    return options


def _run(model: Model, prompts: list[str], max_tokens: int) -> _Round:
    options = _options(model, max_tokens)
    started = time.perf_counter()
    with one_display():  # a bar per round would leave a line per round
        answers = model.generate(prompts, **options)
    return _Round(time.perf_counter() - started, tuple(answers))


def _point(model: Model, number: int, rounds: list[_Round]) -> Point:
    speeds = [one.speed for one in rounds]
    timings = [answer.timings for one in rounds for answer in one.answers]
    return Point(
        model=model.name,
        engine=model.engine,
        quant=model.quant,
        concurrency=number,
        speed=median(speeds),
        spread=max(speeds) / min(speeds),
        ttft_ms=tuple(1000 * t.ttft_s for t in timings if t.ttft_s is not None),
        tpot_ms=tuple(1000 * t.decode_s / t.decoded for t in timings if t.decoded),
        memory=model.memory().resident,
    )


def _rounded(speed: float) -> float:
    """Tokens per second, so that slow ones aren't rounded away."""
    return round(speed, 1 if speed >= 10 else 3)
