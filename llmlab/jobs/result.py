"""The result of a job: rows in a folder, as a DataFrame, a data set or one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.jobs.shards import Output
from llmlab.render import units
from llmlab.render.safe import BOX, escape, plain

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5


@dataclass(frozen=True)
class Mapped:
    """The rows of a job (`llmlab.map`), in the data's order. They stay on disk, so that there may be any number.

    Attributes:
        path: the folder.
        computed: how many rows this run has answered.
        seconds: how long it took.
        workers: worker -> how many rows it has answered in this run.

    Example:
        >>> job = llmlab.map([{"country": "France"}], "What is the capital of {{country}}?", model="nano",
        ...                  engine="llamacpp", temperature=0)
        >>> job.frame["text"].tolist()
        ['The capital of France is Paris.']
    """

    path: Path
    computed: int = 0
    seconds: float = 0.0
    workers: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        shards = Output(self.path).shards()
        return shards[-1].end if shards else 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return Output(self.path).rows()

    @property
    def complete(self) -> bool:
        """Whether all rows of the data have an answer or an error."""
        return bool((Output(self.path).manifest() or {}).get("complete"))

    @property
    def failed(self) -> int:
        """How many rows have an error."""
        return sum(shard.failed for shard in Output(self.path).shards())

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a DataFrame, with a column `parsed.NAME` per field of a parsed object.

        All rows are in memory then; `dataset()` and a loop over the job leave them on disk.
        """
        return _frame(iter(self))

    @property
    def errors(self) -> pd.DataFrame:
        """The rows that failed."""
        return _frame(row for row in self if row["error"])

    def dataset(self) -> Any:
        """The rows as a `datasets.Dataset`, which stays on disk.

        Returns:
            The data set.

        Raises:
            EngineMissingError: the package datasets isn't installed.
            BadInputError: the job has no rows yet.

        Example:
            >>> job = llmlab.map([{"country": "France"}], "What is the capital of {{country}}?", model="nano",
            ...                  engine="llamacpp", temperature=0)
            >>> job.dataset()["text"][0]
            'The capital of France is Paris.'
        """
        shards = Output(self.path).shards()
        if not shards:
            raise BadInputError(f"{self.path} has no rows yet.")
        try:
            _imports.load("datasets", "pyarrow.json")
        except ImportError as error:
            raise EngineMissingError(f"{error}.", "pip install datasets") from None
        import datasets
        import pyarrow as pa
        import pyarrow.json

        # A column may have no value in one shard and a text in the next: the types are those of all shards together.
        schemas = [pyarrow.json.read_json(shard.path).schema for shard in shards]
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        features = datasets.Features.from_arrow_schema(schema)
        return datasets.Dataset.from_json([str(shard.path) for shard in shards], features=features)

    @property
    def line(self) -> str:
        """The job in one line."""
        rows, failed = len(self), self.failed
        parts = [units.count(rows, "row")]
        if self.computed < rows:
            parts[0] += f" ({self.computed:,} of them new)"
        if failed:
            parts.append(f"{failed:,} failed")
        if self.computed:
            parts.append(units.seconds(self.seconds))
        if len(self.workers) > 1:
            parts.append(", ".join(f"{name}: {count:,}" for name, count in self.workers.items()))
        return f"{', '.join(parts)} in {self.path}" + ("" if self.complete else " (not complete)")

    def _head(self) -> pd.DataFrame:
        rows = iter(self)
        return _frame(row for _, row in zip(range(_SHOWN), rows, strict=False))

    def __repr__(self) -> str:
        head = self._head()
        shown = head[[name for name in head.columns if name not in ("prompt_tokens", "reasoning")]]
        return plain(f"{self.line}\n{shown.to_string(index=False, max_colwidth=48)}")

    def _repr_html_(self) -> str:
        return (
            f'<div class="{BOX}"><div>{escape(self.line)}</div>{self._head().to_html(index=False, escape=True)}</div>'
        )


def opened(path: str | Path) -> Mapped:
    """The rows that a job has written so far, without running it.

    Args:
        path: its folder.

    Returns:
        The rows.

    Raises:
        BadInputError: there is no job in the folder.

    Example:
        >>> job = llmlab.map([{"n": 3}], "Is {{n}} odd?", model="nano", engine="llamacpp")
        >>> len(llmlab.jobs.result.opened(job.path))
        1
    """
    found = Path(path).expanduser()
    if Output(found).manifest() is None:
        raise BadInputError(f"There is no job in {found}.", "Give the folder of llmlab.map(..., output=folder).")
    return Mapped(found)


def _frame(rows: Iterator[dict[str, Any]]) -> pd.DataFrame:
    _imports.load("pandas")
    import pandas as pd

    frame = pd.DataFrame(list(rows))
    if "parsed" not in frame.columns:
        return frame
    if frame["parsed"].isna().all():
        return frame.drop(columns="parsed")
    names: dict[str, None] = {}
    for value in frame["parsed"]:
        names |= dict.fromkeys(value) if isinstance(value, dict) else {}
    for name in names:
        frame[f"parsed.{name}"] = [value.get(name) if isinstance(value, dict) else None for value in frame["parsed"]]
    return frame
