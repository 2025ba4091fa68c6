"""An experiment's scores as a table of means with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, unknown
from llmlab.experiments.design import AXES
from llmlab.render.table import Table, TableView
from llmlab.statistics import Estimate, averages, mean
from llmlab.statistics.estimates import is_share

if TYPE_CHECKING:
    import pandas as pd

_SHORT = 60


class ScoreTable(TableView):
    """Means with n and interval. Returned by `Experiment.table`.

    Attributes:
        estimates: (row, column) -> the estimate.

    Example:
        >>> exp = llmlab.experiment("table", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
        ...                         quants=["F16", "Q4_K_M"], params={"short": {"max_tokens": 4}}, scorers=["tokens"])
        >>> exp.run().table(rows="quant")
        quant   tokens
        ------  ----------
        F16     4.000, n=1
        Q4_K_M  4.000, n=1
        n counts prompts; [low, high] are 95 % intervals.
    """

    def __init__(
        self,
        heads: Sequence[str],
        rows: Sequence[tuple[str, ...]],
        columns: Sequence[str],
        estimates: Mapping[tuple[tuple[str, ...], str], Estimate],
        note: str,
    ) -> None:
        self.estimates = dict(estimates)
        self._heads, self._rows, self._columns = tuple(heads), tuple(rows), tuple(columns)
        body = [[*(_cut(part) for part in row), *(estimates[row, column].text for column in columns)] for row in rows]
        super().__init__(Table((*heads, *columns), body, note=note))

    @property
    def frame(self) -> pd.DataFrame:
        """One row per entry, with the axes, column, value, low, high, n."""
        _imports.load("pandas")
        import pandas as pd

        found = [
            {
                **dict(zip(self._heads, row, strict=True)),
                "column": column,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "n": one.n,
            }
            for row in self._rows
            for column in self._columns
            for one in (self.estimates[row, column],)
        ]
        return pd.DataFrame(found)


def table(
    frame: pd.DataFrame,
    rows: Any,
    columns: Any,
    value: str | None,
    scores: Sequence[str],
    notes: Sequence[str],
    *,
    bounded: Collection[str] = (),
) -> ScoreTable:
    """Make the table. Arguments and errors as `Experiment.table`; `bounded` are the scores that are 0 to 1."""
    by_column = (columns,) if isinstance(columns, str) else tuple(columns or ())
    if rows is None:
        rows = [name for name in AXES if name not in (*by_column, "seed", "repeat") and frame[name].nunique() > 1]
        rows = rows or ["model"]
    by_row = (rows,) if isinstance(rows, str) else tuple(rows)
    known = [name for name in frame.columns if name in AXES or frame[name].dtype == object]
    for name in (*by_row, *by_column):
        if name not in frame.columns:
            raise unknown("axis", name, known)
    shown = [value] if value is not None else list(scores)
    if not shown:
        raise BadInputError("There is no score to show.", 'Add scorers=[...], or name a column: value="tokens"')
    estimates: dict[tuple[tuple[str, ...], str], Estimate] = {}
    row_keys = _keys(frame, by_row)
    column_keys = _keys(frame, by_column) if by_column else [()]
    heads = []
    for key in column_keys:
        part = _where(frame, by_column, key)
        for name in shown:
            head = " ".join((*key, *((name,) if len(shown) > 1 or not key else ())))
            heads.append(head)
            for row in row_keys:
                estimates[row, head] = estimate(_where(part, by_row, row), name, bounded=name in bounded)
    note = "n counts prompts; [low, high] are 95 % intervals."
    return ScoreTable(by_row, row_keys, heads, estimates, "\n".join([note, *_gaps(frame, by_row, row_keys), *notes]))


def _gaps(frame: pd.DataFrame, names: Sequence[str], keys: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows some of whose cells failed: their means are over other settings than those of the others."""
    found = []
    for key in keys:
        part = _where(frame, names, key)
        failed = int((part["error"] != "").sum())
        if 0 < failed < len(part):
            found.append(
                f"{' '.join(key)}: {failed} of {len(part)} cells failed, so its means aren't over the same settings as "
                "the others'; exp.compare compares only what both have."
            )
    return found


def estimate(frame: pd.DataFrame, name: str, *, bounded: bool = False) -> Estimate:
    """The mean of a column, over prompts; `column=label` is the share of that label."""
    column, equals, label = name.partition("=")
    if column not in frame.columns:
        raise unknown("score", column, [one for one in frame.columns if one not in AXES])
    scored = frame[frame[column].notna()]
    values = scored[column]
    if equals:
        values = values.astype(str) == label
    try:
        numbers = [float(one) for one in values]
    except (TypeError, ValueError):
        labels = ", ".join(f"{column}={one}" for one in list(dict.fromkeys(map(str, values)))[:4])
        raise BadInputError(f"{column} has labels, not numbers.", f"Show the share of one: value= {labels}") from None
    # The mean of repeats that are yes or no is a share, too.
    return mean(list(averages(list(scored["question"]), numbers).values()), bounded=bounded or is_share(numbers))


def _keys(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(str(one) for one in row) for row in frame[list(names)].itertuples(index=False)))


def _where(frame: pd.DataFrame, names: Sequence[str], key: Sequence[str]) -> pd.DataFrame:
    for name, value in zip(names, key, strict=True):
        frame = frame[frame[name].astype(str) == value]
    return frame


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
