"""Compare several adapters on the same prompts, optionally with a metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.adapters.attached import NONE
from llmlab.errors import BadInputError
from llmlab.statistics import Estimate, holm, mean, paired, sentence
from llmlab.types import Completion

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.adapters.view import ComparisonView

Metric = Callable[..., float]


@dataclass(frozen=True)
class AdapterComparison:
    """The result of `compare`.

    Attributes:
        adapters: the columns; "none" is the base model alone.
        prompts: the rows: each a text, or a conversation's last message.
        completions: per prompt, one per adapter.
        scores: the metric of each completion, in the same layout; None without a metric.
        metric: the metric's name, or "".
    """

    adapters: tuple[str, ...]
    prompts: tuple[str, ...]
    completions: tuple[tuple[Completion, ...], ...]
    scores: tuple[tuple[float, ...], ...] | None = None
    metric: str = ""

    @property
    def means(self) -> dict[str, float]:
        """The metric's mean per adapter; empty without a metric."""
        if self.scores is None:
            return {}
        columns = zip(*self.scores, strict=True)
        return {name: sum(column) / len(self.prompts) for name, column in zip(self.adapters, columns, strict=True)}

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The metric's mean per adapter, with its 95 % interval and n; empty without a metric."""
        if self.scores is None:
            return {}
        columns = zip(*self.scores, strict=True)
        return {name: mean(column) for name, column in zip(self.adapters, columns, strict=True)}

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What the metric says of each adapter against the first one, on the same prompts, after Holm's correction."""
        if self.scores is None:
            return ()
        first, *others = zip(*self.scores, strict=True)
        pairs = holm([paired(other, first) for other in others])
        return tuple(
            sentence(name, self.adapters[0], self.metric, found)
            for name, found in zip(self.adapters[1:], pairs, strict=True)
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row per prompt and adapter: prompt, adapter, text, tokens, seconds, finish_reason, and the metric."""
        _imports.load("pandas")
        import pandas as pd

        rows = []
        for i, prompt in enumerate(self.prompts):
            for j, adapter in enumerate(self.adapters):
                done = self.completions[i][j]
                row: dict[str, Any] = {
                    "prompt": prompt,
                    "adapter": adapter,
                    "text": done.text,
                    "tokens": done.usage.completion_tokens,
                    "seconds": done.timings.total_s,
                    "finish_reason": done.finish_reason,
                }
                if self.scores is not None:
                    row[self.metric] = self.scores[i][j]
                rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return self._view().text()

    def _repr_html_(self) -> str:
        return self._view()._repr_html_()

    def _view(self) -> ComparisonView:
        from llmlab.adapters.view import ComparisonView

        return ComparisonView(self)


def compare(
    generate: Callable[..., list[Completion]],
    adapters: Sequence[str | None],
    prompts: Sequence[Any],
    metric: Metric | None = None,
    options: Mapping[str, Any] | None = None,
) -> AdapterComparison:
    """Generate every prompt with every adapter, in one batch.

    Args:
        generate: the model's `generate`.
        adapters: values of `generate(adapter=...)`; None or "none" for the base model alone.
        prompts: texts or conversations.
        metric: a function of (text), (text, prompt) or (text, prompt, completion) that returns a number (True counts
            as 1).
        options: other keywords of `generate`; greedy unless a temperature is given.

    Raises:
        BadInputError: no prompts or adapters, or the metric has other parameters or doesn't return a number.
    """
    if isinstance(prompts, str) or not prompts:
        raise BadInputError("prompts must be a non-empty list of texts.", "For example --prompts questions")
    if not adapters:
        raise BadInputError("Name at least one adapter to compare.", "none means the base model alone.")
    names = tuple(name if name is not None else NONE for name in adapters)
    arguments = _arguments(metric) if metric is not None else 0
    options = dict(options or {})
    if "params" not in options:
        options.setdefault("temperature", 0)
    asked = [prompt for prompt in prompts for _ in names]
    found = generate(asked, adapter=[name for _ in prompts for name in names], **options)
    rows = tuple(tuple(found[i * len(names) : (i + 1) * len(names)]) for i in range(len(prompts)))
    shown = tuple(_text(prompt) for prompt in prompts)
    if metric is None:
        return AdapterComparison(names, shown, rows)
    scores = tuple(
        tuple(_score(metric, (done.text, prompt, done)[:arguments]) for done in row)
        for prompt, row in zip(prompts, rows, strict=True)
    )
    return AdapterComparison(names, shown, rows, scores, getattr(metric, "__name__", "metric"))


def _arguments(metric: Metric) -> int:
    """How many of (text, prompt, completion) the metric takes as positional arguments."""
    if not callable(metric):
        raise BadInputError(f"A metric must be a function of the answer's text, got {type(metric).__name__}.")
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return 3
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in places if one.default is one.empty]
    if not places or len(needed) > 3:
        raise BadInputError(
            "A metric must take 1 to 3 positional arguments: the answer's text, the prompt, the completion."
        )
    return max(len(needed), 1)


def _score(metric: Metric, arguments: tuple[Any, ...]) -> float:
    value = metric(*arguments)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadInputError(f"The metric must return a number, got {value!r:.80}.") from None


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1]
    return str(last["content"] if isinstance(last, Mapping) else getattr(last, "content", last))
