"""What an evaluation found: scores with n and intervals, and their comparison with another model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError
from llmlab.render.safe import plain
from llmlab.render.table import Table, View
from llmlab.statistics import Estimate, Paired, holm, paired, sentence
from llmlab.statistics.estimates import number

if TYPE_CHECKING:
    import pandas as pd

TARGET = "target_logprob"
"""llmlab's own measure of a task with choices: the right one's log-likelihood, in nats."""


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one task.

    Attributes:
        task: the task, or a group of tasks.
        metric: lm-eval's name of it; `target_logprob` is llmlab's own.
        filter: lm-eval's filter of the answers; "none" without one.
        estimate: lm-eval's value, with its interval and the number of items.
        better: "higher" or "lower"; "" where lm-eval doesn't say.
        values: one number per item; empty for a metric that isn't a mean over items.
        items: the items' digests, in the order of `values`.
    """

    task: str
    metric: str
    filter: str
    estimate: Estimate
    better: str = ""
    values: tuple[float, ...] = field(default=(), repr=False)
    items: tuple[str, ...] = field(default=(), repr=False)

    @property
    def value(self) -> float:
        """lm-eval's figure."""
        return self.estimate.value

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, metric and filter."""
        return self.task, self.metric, self.filter


@dataclass(frozen=True, repr=False)
class Evaluation(View):
    """A model's scores on lm-eval's tasks.

    Attributes:
        model: the model, its quant and its adapter.
        scores: one per task, metric and filter.
        about: how it was evaluated: engine, shots, limit, chat, lm-eval's release.
        logged: lm-eval's own record of every item, by task.
        notes: lm-eval's warnings.

    Example:
        >>> from llmlab.evaluation import Evaluation, Score
        >>> score = Score("capitals", "acc", "none", llmlab.statistics.mean([1, 0, 1, 1]))
        >>> about = {"lm_eval": "0.4.13", "engine": "vllm", "shots": 0, "limit": None, "chat": False}
        >>> Evaluation("nano bf16", (score,), about, {})["acc"].estimate.text
        '0.750 [0.301, 0.954], n=4'
    """

    model: str
    scores: tuple[Score, ...] = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)
    logged: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Score:
        """The score with this metric, or `task metric`, or `task metric filter`."""
        wanted = name.split()
        found = [one for one in self.scores if all(part in one.key for part in wanted)]
        if len(found) != 1:
            known = ", ".join(" ".join(one.key) for one in self.scores)
            raise BadInputError(f"{name!r} is {len(found) or 'none'} of the scores.", f"Scores: {known}.")
        return found[0]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per score: task, metric, filter, value, low, high, n, better."""
        _imports.load("pandas")
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "task": one.task,
                    "metric": one.metric,
                    "filter": one.filter,
                    "value": one.value,
                    "low": one.estimate.low,
                    "high": one.estimate.high,
                    "n": one.estimate.n,
                    "better": one.better,
                }
                for one in self.scores
            ]
        )

    @property
    def samples(self) -> pd.DataFrame:
        """One row per item and filter: task, prompt, target, what the model said, and its metrics."""
        _imports.load("pandas")
        import pandas as pd

        rows = []
        for task, items in self.logged.items():
            for item in items:
                own = {"task": task, "item": item["doc_id"], "filter": item["filter"]}
                own |= {"prompt": item["arguments"][0][0], "target": item["target"], "said": item["filtered_resps"]}
                rows.append(own | {name: item[name] for name in item["metrics"]})
        return pd.DataFrame(rows)

    def compare(self, other: Evaluation) -> Contrast:
        """Say what differs from another evaluation of the same tasks, in pairs of items.

        Args:
            other: another model's, quant's or adapter's.

        Returns:
            The comparison: `.sentences`, `.frame`.

        Raises:
            BadInputError: they have no task with the same items in common.

        Example:
            >>> from llmlab.evaluation import Evaluation, Score
            >>> def made(name, values):
            ...     mean = llmlab.statistics.mean(values)
            ...     return Evaluation(name, (Score("t", "acc", "none", mean, "", tuple(values), ("a", "b")),), {}, {})
            >>> print(made("Q2_K", [1, 1]).compare(made("F16", [1, 1])).sentences[0])
            The data can't tell whether Q2_K and F16 differ on t acc: 1.000 against 1.000, a difference of 0.000 ...
        """
        theirs = {one.key: one for one in other.scores}
        pairs = [
            (one, theirs[one.key])
            for one in self.scores
            if one.values and one.key in theirs and theirs[one.key].items == one.items
        ]
        if not pairs:
            raise BadInputError(
                f"{self.model} and {other.model} weren't evaluated on the same items.",
                "Evaluate the same tasks, with the same limit.",
            )
        found = holm([paired(one.values, second.values) for one, second in pairs])
        scores = tuple(one for one, _ in pairs)
        return Contrast(self.model, other.model, scores, tuple(found))

    @property
    def line(self) -> str:
        """The settings in one line."""
        about = self.about
        shots = f"{about['shots']} shots" if about["shots"] is not None else "the tasks' own shots"
        parts = [
            f"lm-eval {about['lm_eval']}",
            about["engine"],
            shots,
            "chat template" if about["chat"] else "plain text",
        ]
        if about["limit"] is not None:
            parts.append(f"the first {about['limit']} items")
        return f"{self.model}: {', '.join(parts)}"

    def _table(self) -> Table:
        rows = []
        for one in self.scores:
            ends = one.estimate
            known = ends.low == ends.low and ends.high == ends.high
            interval = f"[{number(ends.low)}, {number(ends.high)}]" if known else "–"
            shown = one.metric if one.filter == "none" else f"{one.metric} ({one.filter})"
            rows.append((one.task, shown, number(one.value), interval, str(ends.n)))
        note = [f"{self.line}. Intervals: 95 %, over items."]
        if any(one.metric == TARGET for one in self.scores):
            note.append(f"{TARGET}: the log-likelihood of the right choice, in nats; llmlab's own.")
        return Table(("task", "metric", "value>", "interval>", "n>"), rows, note="\n".join([*note, *self.notes]))

    def text(self) -> str:
        """A line per score."""
        return self._table().text()

    def html(self) -> str:
        """A row per score."""
        return self._table().html()


@dataclass(frozen=True, repr=False)
class Contrast(View):
    """Two evaluations, compared item by item; corrected for the number of scores (Holm).

    Attributes:
        first, second: the models.
        scores: what was compared.
        pairs: the paired test of each.
    """

    first: str
    second: str
    scores: tuple[Score, ...] = field(repr=False)
    pairs: tuple[Paired, ...] = field(repr=False)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the data say of each score."""
        return tuple(
            sentence(self.first, self.second, f"{score.task} {score.metric}", found, unit="item")
            for score, found in zip(self.scores, self.pairs, strict=True)
        )

    @property
    def frame(self) -> pd.DataFrame:
        """One row per score: task, metric, difference, its interval, p, n."""
        _imports.load("pandas")
        import pandas as pd

        rows = []
        for score, found in zip(self.scores, self.pairs, strict=True):
            own = {"task": score.task, "metric": score.metric, "difference": found.difference.value}
            own |= {"low": found.difference.low, "high": found.difference.high, "p": found.p, "n": found.n}
            rows.append(own | {"different": found.different})
        return pd.DataFrame(rows)

    def text(self) -> str:
        """The sentences."""
        return plain("\n".join(self.sentences))
