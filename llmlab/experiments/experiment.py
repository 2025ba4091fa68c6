"""An `Experiment`: a declared table of cells, run and resumed, scored, compared, shown and exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmlab import _imports
from llmlab._hooks import hooks
from llmlab.engines.base import Rendered
from llmlab.errors import BadInputError, unknown
from llmlab.experiments import execution
from llmlab.experiments.comparison import Comparison
from llmlab.experiments.comparison import compare as compare_levels
from llmlab.experiments.design import AXES, Design, Subject
from llmlab.experiments.execution import Result, Run
from llmlab.experiments.identity import Identity
from llmlab.experiments.judges import Agreement, agreement
from llmlab.experiments.scoring import Scorer
from llmlab.experiments.store import Store
from llmlab.experiments.tables import ScoreTable
from llmlab.experiments.tables import table as score_table
from llmlab.measure.comparison import Diff
from llmlab.measure.prompts import compared
from llmlab.render import units
from llmlab.render.safe import BOX, escape, plain
from llmlab.statistics import Spread, spread
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.session import Lab

Format = Literal["csv", "parquet", "datasets", "comparator", "promptfoo", "html"]


class Experiment:
    """A declared experiment. Made by `llmlab.experiment`; `run()` answers what isn't answered yet.

    Attributes:
        name: its name.
        design: what it varies.
        scorers: how answers are scored.
        differences: what differs from the lock that it was made from.

    Example:
        >>> exp = llmlab.experiment("capitals", prompts=["What is the capital of {{country}}?"],
        ...                         data=[{"country": "France", "answer": "Paris"}], models=["nano"],
        ...                         engines=["llamacpp"], scorers=["contains"])
        >>> exp.run().frame[["country", "text", "contains"]].values.tolist()
        [['France', 'The capital of France is Paris.', True]]
    """

    def __init__(
        self, design: Design, scorers: Sequence[Scorer], *, lab: Lab, ctx: int | None = None, store: Store | None = None
    ) -> None:
        self.name = design.name
        self.design = design
        self.scorers = tuple(scorers)
        self.differences: tuple[str, ...] = ()
        execution.check_scorable([one.name for one in self.scorers])
        self._lab, self._ctx = lab, ctx
        self._store = store or Store()
        self._results: list[Result] = []
        self._identities: dict[Subject, Identity] = {}
        self._frame: pd.DataFrame | None = None
        self._rows: list[dict[str, Any]] = []
        self._computed = 0

    # -- running -------------------------------------------------------------------------------

    def run(self, *, fresh: bool = False, progress: Progress | None = None) -> Experiment:
        """Answer every cell that has no answer yet, and score all of them.

        Each model is loaded once, attached ones first, small ones before large ones, and unloaded before the next.
        Every answer is on disk as soon as it is there: after an interrupt, a crash or a kernel restart the same
        experiment goes on from there. A cell that fails is a row with its reason, and is tried again by the next run.

        Args:
            fresh: answer everything again.
            progress: called with (phase, fraction done); None: a bar, in a notebook.

        Returns:
            The experiment itself.

        Raises:
            BadInputError: a quant that runs on none of the engines.
            Interrupted: Ctrl-C; what was answered is kept.

        Example:
            >>> exp = llmlab.experiment("again", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"])
            >>> exp.run().run().computed
            0
        """
        needed = {one.name: _with_model(one) for one in self.scorers if one.needs == "model"}
        with hooks.progress(f"experiment {self.name}", progress) as report:
            found = Run(self.design, self._store, self._lab, ctx=self._ctx, scores=needed, progress=report, fresh=fresh)
            try:
                self._results = found.everything()
            finally:
                self._identities = found.identities
                self._computed = found.computed
                self._frame = None
            report("scoring", 1.0)
            self._frame = self._scored()
        self._store.close()  # an experiment that is kept, as in a cell's output, keeps no file open
        return self

    @property
    def computed(self) -> int:
        """How many answers the last run has computed; the others were on disk."""
        return self._computed

    @property
    def identities(self) -> tuple[Identity, ...]:
        """What the models of the last run are, by content."""
        return tuple(self._identities.values())

    @property
    def results(self) -> tuple[Result, ...]:
        """The cells with their answers, in the frame's order."""
        self._known()
        return tuple(self._results)

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The rows of the frame as dicts, with None where there is no value."""
        self._known()
        return tuple(self._rows)

    # -- results -------------------------------------------------------------------------------

    @property
    def frame(self) -> pd.DataFrame:
        """One row per answer, with the axes, the data, the text, its measurements, and the scores."""
        return self._known()

    def _known(self) -> pd.DataFrame:
        if self._frame is None:
            raise BadInputError(f"The experiment {self.name} has no results yet.", "Run it: exp.run()")
        return self._frame

    def _scored(self) -> pd.DataFrame:
        _imports.load("pandas")
        import pandas as pd

        from llmlab.experiments.rows import rows_of, score_rows

        self._rows = rows_of(self._results, self._gate())
        score_rows(self._rows, self._results, self.scorers, self._store)
        return pd.DataFrame(self._rows)

    def _gate(self) -> dict[int, dict[str, Any]]:
        """Per result: whether the model reads the same prompt as the experiment's first one, for the same request."""
        first: dict[Any, Rendered] = {}
        found: dict[int, dict[str, Any]] = {}
        for index, one in enumerate(self._results):
            if one.body is None:
                continue
            body = one.body
            ids = tuple(body["prompt_ids"]) or None
            read = Rendered(body["prompt"] or None, ids, body["prompt_note"], model=one.cell.subject.label)
            place = (one.cell.question.index, one.cell.setting.system)
            gate = compared(first.setdefault(place, read), read)
            found[index] = {"same": gate.same, "line": gate.line, "diff": gate.diff}
        return found

    @property
    def prompts(self) -> tuple[str, ...]:
        """How the prompts that the models read differ from the first model's; empty if they read the same."""
        frame = self._known()
        return tuple(dict.fromkeys(one for one in frame["prompt_differs"] if one))

    def table(
        self,
        rows: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
        value: str | None = None,
    ) -> ScoreTable:
        """The scores by axis; each entry is a mean over prompts with its n and 95 % interval.

        Args:
            rows: an axis or a column of the data, or several; None: every axis that varies.
            columns: the same, for the columns; None: one column per score.
            value: a score, or `score=label` for the share of a label; None: every score.

        Returns:
            The table; `.frame` is a DataFrame of it.

        Raises:
            UnknownNameError: no such axis or score.
            BadInputError: the score has labels, or there is none.

        Example:
            >>> exp = llmlab.experiment("sizes", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         params={"short": {"max_tokens": 4}}, scorers=["tokens"])
            >>> exp.run().table(rows="model").estimates[("nano",), "tokens"].value
            4.0
        """
        from llmlab.experiments.views import notes

        frame = self._known()
        bounded = {one.name for one in self.scorers if one.bounded}
        return score_table(frame, rows, columns, value, self.numbers(), notes(self), bounded=bounded)

    def compare(
        self, axis: str, value: str | None = None, *, against: str | None = None, see: float | None = None
    ) -> Comparison:
        """Say in words what differs between the levels of an axis, and what the data can't tell.

        Every two levels are compared on the same prompts, with the other settings matched: McNemar's exact test for
        yes/no, sign flips for numbers, Wilcoxon's test for ratings; repeats and settings of one prompt are averaged
        first. Holm's correction covers all pairs and scores.

        Args:
            axis: template, model, engine, quant, adapter, system, params, constraint, seed or repeat.
            value: a score; None: all of them.
            against: compare only with this level; None: every pair.
            see: the difference for which the necessary number of prompts is named; None: each sentence says which
                difference these prompts would show.

        Returns:
            The comparison: `.sentences`, `.frame`.

        Raises:
            UnknownNameError: no such axis, level or score.
            BadInputError: the axis has one level, or nothing is scored.

        Example:
            >>> exp = llmlab.experiment("pair", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         quants=["F16", "Q4_K_M"], params=[{"max_tokens": 4}], scorers=["tokens"])
            >>> print(exp.run().compare("quant"))
            The data can't tell whether Q4_K_M and F16 differ on tokens: 4.000 against 4.000, a difference of 0.000 on
            1 prompt (sign flips, exact; p = 1.00). Their scores are the same on every prompt.
        """
        frame = self._known()
        numbers = self.numbers()
        if value is not None and value not in numbers:
            raise unknown("score", value, numbers)
        known = {one.name: one for one in self.scorers}
        chosen = [known.get(name) or Scorer(name, len) for name in ([value] if value is not None else numbers)]
        return compare_levels(frame, axis, chosen, against=against, see=see)

    def spread(self, value: str) -> Spread:
        """The variance of a score between repeats and seeds of one request, and between prompts.

        Args:
            value: a score.

        Returns:
            The two variances.

        Raises:
            UnknownNameError: no such score.

        Example:
            >>> exp = llmlab.experiment("draws", prompts=["Hello!", "Who are you?"], models=["nano"], seeds=3,
            ...                         engines=["llamacpp"], params=[{"temperature": 1.0, "max_tokens": 8}],
            ...                         scorers=["tokens"])
            >>> exp.run().spread("tokens").units
            2
        """
        frame = self._known()
        if value not in self.numbers():
            raise unknown("score", value, self.numbers())
        scored = frame[frame[value].notna()]
        axes = [name for name in AXES if name not in ("seed", "repeat")]
        units = ["\x1f".join(map(str, row)) for row in scored[["question", *axes]].itertuples(index=False)]
        return spread(units, [float(one) for one in scored[value]])

    def diff(self, i: int, j: int) -> Diff:
        """Two answers side by side, with the first token that differs.

        Args:
            i: the row of one answer in the frame.
            j: the row of the other.

        Returns:
            The difference.

        Raises:
            BadInputError: there is no such row, or it has no answer.

        Example:
            >>> exp = llmlab.experiment("tokens", prompts=["Is 3 odd?", "Is 4 odd?"], models=["nano"],
            ...                         engines=["llamacpp"])
            >>> exp.run().diff(0, 1).a
            '0: nano llamacpp F16'
        """
        from llmlab.experiments.views import difference

        return difference(self, i, j)

    def plot(self, value: str | None = None, by: str | None = None) -> Any:
        """The means with their intervals, as an altair chart: one point per variant.

        Args:
            value: a score; None: the first.
            by: the axis on the vertical; None: the first that varies.

        Returns:
            The chart.

        Raises:
            EngineMissingError: altair isn't installed.
            UnknownNameError: no such score or axis.

        Example:
            >>> exp = llmlab.experiment("chart", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         quants=["F16", "Q4_K_M"], params=[{"max_tokens": 4}], scorers=["tokens"])
            >>> type(exp.run().plot()).__name__
            'LayerChart'
        """
        from llmlab.experiments.views import chart

        return chart(self, value, by)

    # -- ratings, display, files ------------------------------------------------------------------

    def show(self) -> Any:
        """A widget: prompts by variants, with whole answers, filters, and ratings by thumbs or blind pairs.

        Returns:
            The widget (`llmlab.widgets.Grid`).

        Raises:
            LlmLabError: the `widgets` extra isn't installed.

        Example:
            >>> exp = llmlab.experiment("seen", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"])
            >>> exp.run().show()
            <Grid of seen: 1 prompt, 1 variant>
        """
        assert hooks.grid is not None
        return hooks.grid(self)

    def rate(self, rating: Mapping[str, Any]) -> None:
        """Keep a person's rating: {"row": 3, "thumb": 1} or {"a": 3, "b": 7, "winner": "a"}.

        Args:
            rating: rows of the frame, and the verdict: thumb is 1 or -1, winner "a", "b" or "tie".

        Raises:
            BadInputError: there is no such row or verdict.

        Example:
            >>> exp = llmlab.experiment("rated", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"]).run()
            >>> exp.rate({"row": 0, "thumb": 1})
            >>> exp.ratings["thumb"].tolist()[-1]
            1
        """
        from llmlab.experiments.rows import checked_rating

        self._store.rate(self.name, checked_rating(rating, self.results))

    @property
    def ratings(self) -> pd.DataFrame:
        """People's ratings of this experiment, oldest first, also those of earlier sessions."""
        _imports.load("pandas")
        import pandas as pd

        columns = ["row", "thumb", "a", "b", "winner", "blind", "at", "keys"]
        return pd.DataFrame(self._store.ratings(self.name), columns=columns)

    def agreement(self, judge: str) -> Agreement:
        """How far a judge's grades agree with people's thumbs: a grade of 4 or 5 counts as a thumb up.

        Args:
            judge: the judge's column.

        Returns:
            The agreement, with Cohen's kappa.

        Raises:
            UnknownNameError: no such score.

        Example:
            >>> exp = llmlab.experiment("judged", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         scorers=[llmlab.experiments.judges.judge(model)])
            >>> exp.run().agreement("judge").n
            0
        """
        from llmlab.experiments.rows import thumbs

        if judge not in self.numbers():
            raise unknown("score", judge, self.numbers())
        people = thumbs(self._store.ratings(self.name))
        both = [row for row in self.rows if row["key"] in people and row[judge] is not None]
        return agreement([float(row[judge]) >= 4 for row in both], [people[row["key"]] for row in both])

    def export(self, path: str | Path, format: Format | None = None) -> Path:  # noqa: A002 - the word for it
        """Write the results to a file.

        Args:
            path: the file; for `datasets`, the folder.
            format: csv, parquet, datasets (a row set for `datasets.load_from_disk`), comparator (LLM Comparator's
                JSON, two variants), promptfoo (its results JSON) or html (a report in one file); None: by the
                file's name.

        Returns:
            The path.

        Raises:
            BadInputError: an unknown format, or not two variants for the comparator.
            DiskError: the file can't be written.

        Example:
            >>> exp = llmlab.experiment("file", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"])
            >>> exp.run().export("file.html").name
            'file.html'
        """
        from llmlab.experiments.export import write

        return write(self, Path(path), format)

    def lock(self, path: str | Path = "llmlab.lock") -> Path:
        """Write what the results depend on: weights, tokenizers, templates, adapters, versions, hardware, seeds.

        Args:
            path: the file. `llmlab.experiment.from_lock(path)` checks it and runs the experiment again.

        Returns:
            The path.

        Raises:
            DiskError: the file can't be written.

        Example:
            >>> exp = llmlab.experiment("fixed", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"])
            >>> exp.run().lock().name
            'llmlab.lock'
        """
        from llmlab.experiments.lock import write

        return write(self, Path(path))

    # -- display -------------------------------------------------------------------------------

    def numbers(self) -> list[str]:
        """The scores that are numbers, or yes and no.

        Example:
            >>> exp = llmlab.experiment("kinds", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         scorers=["tokens"])
            >>> exp.run().numbers()
            ['tokens']
        """
        self._known()
        found = []
        for one in self.scorers:
            values = [row[one.name] for row in self._rows if row[one.name] is not None]
            if values and not any(isinstance(value, str) for value in values):
                found.append(one.name)
        return found

    @property
    def line(self) -> str:
        """The experiment in one line."""
        if self._frame is None:
            settings = sum(len(self.design.settings_of(subject)) for subject in self.design.subjects())
            cells = len(self.design.questions()) * settings
            return f"{self.name}: {units.count(cells, 'cell')}, not run yet"
        failed = int((self._frame["error"] != "").sum())
        return (
            f"{self.name}: {units.count(len(self._frame), 'answer')} of {units.count(len(self._identities), 'model')}, "
            f"{self._computed:,} of them new, {failed:,} failed"
        )

    def __repr__(self) -> str:
        shown = [self.line]
        if self._frame is not None and self.numbers():
            shown.append(repr(self.table()))
        return plain("\n".join([*shown, *self.differences]))

    def _repr_html_(self) -> str:
        body = f"<div>{escape(self.line)}</div>"
        if self._frame is not None and self.numbers():
            body += self.table()._repr_html_()
        body += "".join(f"<div>{escape(one)}</div>" for one in self.differences)
        return f'<div class="{BOX}">{body}</div>'


def _with_model(scorer: Scorer) -> Callable[[Any, Sequence[Mapping[str, Any]], Sequence[Any]], list[Any]]:
    def score(model: Any, bodies: Sequence[Mapping[str, Any]], questions: Sequence[Any]) -> list[Any]:
        return list(scorer.function(model, bodies, [one.reference for one in questions]))

    return score
