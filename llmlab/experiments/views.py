"""Views of an experiment: the chart of its means, two answers side by side, what to know of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.experiments.design import AXES
from llmlab.measure.comparison import Diff, Sample
from llmlab.render import units

if TYPE_CHECKING:
    from llmlab.experiments.experiment import Experiment


def chart(experiment: Experiment, value: str | None, by: str | None) -> Any:
    """The chart. Arguments and errors as `Experiment.plot`."""
    frame, numbers = experiment.frame, experiment.numbers()
    if not numbers:
        raise BadInputError("There is no score to plot.", "Add scorers=[...].")
    shown = value or numbers[0]
    varied = [name for name in AXES if frame[name].nunique() > 1] or ["model"]
    axis = by or ("quant" if "quant" in varied else varied[0])
    others = [name for name in varied if name not in (axis, "seed", "repeat")]
    data = experiment.table([axis, *others], value=shown).frame
    data["variant"] = data[others].agg(" · ".join, axis=1) if others else ""
    try:
        _imports.load("altair")
        import altair as alt
    except ImportError as error:
        raise EngineMissingError("The plot needs altair.", "pip install 'llmlab[notebooks]'") from error
    place = alt.Y(f"{axis}:N", sort=None, title=axis)
    base = alt.Chart(data).encode(y=place)
    if others:
        base = base.encode(yOffset=alt.YOffset("variant:N"), color=alt.Color("variant:N", title=", ".join(others)))
    rule = base.mark_rule().encode(x=alt.X("low:Q", title=f"{shown} (mean, 95 % interval)"), x2="high:Q")
    return rule + base.mark_point(filled=True).encode(x="value:Q", tooltip=["variant:N", "value:Q", "n:Q"])


def difference(experiment: Experiment, i: int, j: int) -> Diff:
    """Two answers side by side. Arguments and errors as `Experiment.diff`."""
    results = experiment.results
    names: list[str] = []
    tokens: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
    texts: dict[str, str] = {}
    for place in (i, j):
        if not 0 <= place < len(results):
            raise BadInputError(f"There is no row {place}: the frame has {len(results)}.")
        body = results[place].body
        if body is None:
            raise BadInputError(f"Row {place} has no answer: {results[place].error}")
        names.append(label(experiment, place))
        tokens[names[-1]] = (tuple(body["token_ids"]), tuple(body["pieces"] or [body["text"]]))
        texts[names[-1]] = body["text"]
    sample = Sample(results[i].cell.question.text, texts, tokens, {})
    return Diff(sample, names[0], names[1], names[0])


def label(experiment: Experiment, place: int) -> str:
    """A row's number with its model and what varies."""
    rows = experiment.rows
    varied = [name for name in AXES[4:] if len({row[name] for row in rows}) > 1]
    parts = [str(rows[place][name]) for name in ("model", "engine", "quant", *varied)]
    return f"{place}: {' '.join(part for part in parts if part)}"


def notes(experiment: Experiment) -> list[str]:
    """What to know of the means: failed cells, prompts that differ, answers without a score."""
    rows, found = experiment.rows, []
    failed = [row["error"] for row in rows if row["error"]]
    if failed:
        found.append(f"{len(failed)} of {len(rows)} cells failed; the first: {failed[0]:.200}")
    differing = sum(row["same_prompt"] is False for row in rows)
    if differing:
        found.append(f"{differing} answers are to a prompt that differs from the first model's: see exp.prompts.")
    for one in experiment.scorers:
        missing = sum(row[one.name] is None and not row["error"] for row in rows)
        if missing:
            found.append(f"{one.name}: no score for {units.count(missing, 'answer')}.")
    return found
