"""Comparing the levels of an axis: paired on the same prompts, corrected, and put into words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, unknown
from llmlab.experiments.design import AXES
from llmlab.experiments.scoring import Scorer
from llmlab.render.safe import BOX, escape, plain
from llmlab.render.table import Table
from llmlab.statistics import Paired, averages, holm, paired, sentence
from llmlab.statistics.estimates import is_share, number
from llmlab.statistics.pairs import Kind

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = ("score", "a", "b", "mean a>", "mean b>", "difference>", "n>", "p (Holm)>", "effect>", "")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two levels of an axis, compared by one score.

    Attributes:
        a, b: the levels.
        score: the score's name.
        found: the paired comparison, with Holm's correction over all pairs and scores.
        note: what else differs between the two.
    """

    a: str
    b: str
    score: str
    found: Paired
    note: str = ""

    def words(self, see: float | None) -> str:
        """The comparison in a sentence or two."""
        text = sentence(self.a, self.b, self.score, self.found, see=see)
        return f"{text} {self.note}".strip()


class Comparison:
    """The levels of an axis, compared on the same prompts. Returned by `Experiment.compare`.

    Attributes:
        axis: what was compared.
        pairs: every pair of levels with every score.

    Example:
        >>> exp = llmlab.experiment("levels", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
        ...                         quants=["F16", "Q4_K_M"], params={"short": {"max_tokens": 4}}, scorers=["tokens"])
        >>> len(exp.run().compare("quant").pairs)
        1
    """

    def __init__(self, axis: str, pairs: Sequence[Pair], see: float | None = None) -> None:
        self.axis = axis
        self.pairs = tuple(pairs)
        self._see = see

    @property
    def sentences(self) -> tuple[str, ...]:
        """What differs, then what the data can't tell."""
        ordered = sorted(self.pairs, key=lambda one: not one.found.different)
        return tuple(one.words(self._see) for one in ordered)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per pair and score, with means, intervals, p-values and effect sizes."""
        _imports.load("pandas")
        import pandas as pd

        rows = [
            {
                "score": one.score,
                "a": one.a,
                "b": one.b,
                "n": one.found.n,
                "mean_a": one.found.a.value,
                "mean_b": one.found.b.value,
                "difference": one.found.difference.value,
                "low": one.found.difference.low,
                "high": one.found.difference.high,
                "test": one.found.test,
                "p": one.found.p,
                "p_holm": one.found.adjusted,
                "effect": one.found.effect,
                "effect_name": one.found.effect_name,
                "different": one.found.different,
                "note": one.note,
            }
            for one in self.pairs
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return plain("\n".join(self.sentences))

    def _repr_html_(self) -> str:
        rows = []
        for one in self.pairs:
            gap = one.found.difference
            ends = f" [{number(gap.low)}, {number(gap.high)}]"
            rows.append(
                [
                    one.score,
                    one.a,
                    one.b,
                    number(one.found.a.value),
                    number(one.found.b.value),
                    number(gap.value) + ends,
                    str(one.found.n),
                    f"{one.found.adjusted:.3f}",
                    number(one.found.effect),
                    "differs" if one.found.different else "can't tell",
                ]
            )
        said = "".join(f"<li>{escape(text)}</li>" for text in self.sentences)
        return f'<div class="{BOX}">{Table(HEADINGS, rows).html()}<ul>{said}</ul></div>'


def compare(
    frame: pd.DataFrame, axis: str, scorers: Sequence[Scorer], *, against: str | None = None, see: float | None = None
) -> Comparison:
    """Compare the levels of an axis. Arguments and errors as `Experiment.compare`."""
    if axis not in AXES:
        raise unknown("axis", axis, AXES)
    levels = list(dict.fromkeys(str(one) for one in frame[axis]))
    if len(levels) < 2:
        raise BadInputError(
            f"There is nothing to compare: the experiment has one {axis}, {levels[0] if levels else 'none'}.",
            f"Declare several: {_plural(axis)}=[...]",
        )
    if against is not None and against not in levels:
        raise unknown(axis, against, levels)
    pairs = []
    for one, other in itertools.combinations(levels, 2):
        if against is not None and against not in (one, other):
            continue
        a, b = (one, other) if other == against else (other, one)
        pairs += [found for scorer in scorers if (found := _pair(frame, axis, a, b, scorer)) is not None]
    if not pairs:
        raise BadInputError("No prompt has scores of two levels.", "Run the experiment, with scorers=[...].")
    adjusted = holm([one.found for one in pairs])
    return Comparison(
        axis, [Pair(one.a, one.b, one.score, found, one.note) for one, found in zip(pairs, adjusted, strict=True)], see
    )


def _pair(frame: pd.DataFrame, axis: str, a: str, b: str, scorer: Scorer) -> Pair | None:
    scored = frame[frame[scorer.name].notna()]
    first, second = scored[scored[axis].astype(str) == a], scored[scored[axis].astype(str) == b]
    matched, note = _settings(first, second, axis)
    unit = "row" if axis == "template" else "question"
    one, other = (_by_setting(part, unit, matched, scorer.name) for part in (first, second))
    # Only what both have answered, so that a failed cell of one doesn't shift its mean.
    shared = [key for key in one if key in other]
    if not shared:
        return None
    units = [key[0] for key in shared]
    x, y = (list(averages(units, [part[key] for key in shared]).values()) for part in (one, other))
    kind: Kind | None = "rating" if scorer.kind == "rating" else None
    # The mean of repeats that are yes or no is a share, too.
    values = [float(part[scorer.name].iloc[at]) for part in (first, second) for at in range(len(part))]
    bounded = scorer.bounded or is_share(values)
    return Pair(a, b, scorer.name, paired(x, y, kind=kind, bounded=bounded), note)


def _by_setting(part: pd.DataFrame, unit: str, axes: Sequence[str], name: str) -> dict[Any, float]:
    """The mean of each prompt in each of the matched settings."""
    keys = [tuple(row) for row in part[[unit, *axes]].itertuples(index=False)]
    return averages(keys, [float(value) for value in part[name]])


def _settings(first: pd.DataFrame, second: pd.DataFrame, axis: str) -> tuple[list[str], str]:
    """The axes in which both levels share a setting; where they share none, that axis differs, too."""
    matched, notes = [], []
    for name in AXES:
        if name == axis:
            continue
        one, other = set(first[name]), set(second[name])
        if one & other:
            matched.append(name)
        elif one and other:
            notes.append(
                f"Their {name} differs, too ({_some(one)} against {_some(other)}): the data can't separate the two."
            )
    return matched, " ".join(notes)


def _some(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values)))


def _plural(axis: str) -> str:
    return {"template": "prompts", "params": "params", "repeat": "repeats"}.get(axis, f"{axis}s")
