"""`llmlab.map`: the rows of a data set through a model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import config
from llmlab._hooks import hooks, one_display
from llmlab._version import __version__
from llmlab.errors import BadInputError, GenerationError, JobInterrupted, UnsupportedError, unknown
from llmlab.experiments.design import plain_constraint
from llmlab.experiments.identity import adapter_digest
from llmlab.experiments.store import digest
from llmlab.jobs import models
from llmlab.jobs.execution import Run, StopError
from llmlab.jobs.raydata import Through
from llmlab.jobs.result import Mapped
from llmlab.jobs.rows import Row, Rows
from llmlab.jobs.shards import SHARD_ROWS, Output, Shard, Writer, same_rows
from llmlab.jobs.template import Template
from llmlab.jobs.workers import ModelWorker, Task, Worker, adapter_of, check_options, failed_record
from llmlab.options import ToolOptions
from llmlab.types import SamplingParams
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab

ANSWER = (*failed_record(""), "row", "probabilities")
"""The columns that a job adds; a column of the data with such a name is kept as `input_NAME`."""
Opens = Callable[[contextlib.ExitStack, Mapping[str, Any]], "list[Worker] | Through"]
"""Opens what answers a job's rows, and checks that it takes the options of every request."""
_SEEDS = 2**32
_WORDS = {
    "model": "model", "prompt": "prompt", "options": "options", "system": "system prompt", "raw": "raw",
    "adapters": "adapters", "adapter_column": "adapter column", "columns": "columns", "data": "data",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a job does with each row.

    Attributes:
        options: the keywords of `Model.stream`, without adapter and seed.
        adapter: the adapter of all rows; `adapter_column` names a column with each row's own.
        seed: the first row's seed.
        columns: the columns that are kept in the result; None: all.
    """

    template: Template
    options: Mapping[str, Any]
    adapter: str | None = None
    adapter_column: str | None = None
    seed: int = 0
    columns: Sequence[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "prompt": self.template.as_dict(),
            "options": plain_constraint({**self.options, "seed": self.seed}),
            "adapter_column": self.adapter_column,
            "columns": list(self.columns) if self.columns is not None else None,
        }


@dataclass
class Job:
    """A job with its folder.

    Args:
        rows: the data.
        settings: what is done with it.
        subjects: the models; the same one, in several places.
        output: where the results are.
        shard_rows: rows per shard.
    """

    rows: Rows
    settings: Settings
    subjects: Sequence[models.Subject]
    output: Output
    shard_rows: int
    adapters: dict[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)
    _about: dict[str, Any] = field(default_factory=dict)

    def run(self, workers: Opens, *, retries: int, fresh: bool, progress: Progress) -> Mapped:
        """Answer the rows that have no answer yet.

        Args:
            workers: opens what answers; called only if there are such rows, with the options of the first.
            retries: how often a failed row is tried again.
            fresh: begin again.
            progress: called with the state in words, and the fraction.
        """
        self.output.claim()
        try:
            done = self._continued(fresh=fresh)
            writer = Writer(self.output, done[-1].end if done else 0, self.shard_rows)
            writer.failed = sum(shard.failed for shard in done)
            started, first = time.monotonic(), writer.next
            rest = self._unanswered(done)
            head = next(rest, None)
            if head is not None:
                self._answer(head, rest, writer, workers, retries, progress)
            self._about |= {"complete": True, "rows": writer.next}
            self.output.describe(self._about)
        finally:
            self.output.release()
        new = writer.next - first
        return Mapped(self.output.path, computed=new, seconds=time.monotonic() - started, workers=dict(self.counts))

    # -- going on ------------------------------------------------------------------------------

    def _continued(self, *, fresh: bool) -> list[Shard]:
        """The shards of an earlier run of the same job."""
        now = {"model": dict(self.subjects[0].content), **self.settings.as_dict()}
        found = self.output.manifest()
        if found is not None and fresh:
            self.output.clear()
            found = None
        if found is not None:
            before = found["settings"]
            changed = [name for name in now if before.get(name) != now[name]]
            if changed:
                raise BadInputError(
                    f"{self.output.path} has the answers of another job: {_differences(before, now, changed)}.",
                    "Give another output=, or begin again: fresh=True",
                )
            self.adapters = dict(found.get("adapters", {}))
        self.output.sweep()
        self._about = {
            "llmlab": __version__,
            "began": (found or {}).get("began") or datetime.now(UTC).isoformat(timespec="seconds"),
            "data": self.rows.origin,
            "model_name": self.subjects[0].label,
            "settings": now,
            "adapters": self.adapters,
            "complete": False,
        }
        self._adapter(self.settings.adapter)
        self.output.describe(self._about)
        return self.output.shards() if found is not None else []

    def _unanswered(self, done: Sequence[Shard]) -> Iterator[Row]:
        """The rows after the last shard; those before it are read, and compared with what was answered."""
        for shard in done:
            last = None
            for row in self.rows:
                last = row
                if row.index + 1 == shard.end:
                    break
            if last is None or last.index + 1 != shard.end or not same_rows(shard, last.digest):
                short = last is None or last.index + 1 != shard.end
                why = "has fewer rows now" if short else f"isn't the same: rows {shard.start:,} to {shard.end - 1:,}"
                raise BadInputError(
                    f"{self.output.path} has answers for other data: {self.rows.origin} {why}.",
                    "Give another output=, or begin again: fresh=True",
                )
        yield from self.rows

    # -- one run -------------------------------------------------------------------------------

    def _answer(
        self, head: Row, rest: Iterator[Row], writer: Writer, workers: Opens, retries: int, progress: Progress
    ) -> None:
        def rows() -> Iterator[Row]:
            yield head
            yield from rest

        try:
            with contextlib.ExitStack() as closing:
                name = adapter_of(self.settings.adapter)[0]
                adapter = {"adapter": name} if name is not None else {}
                opened = workers(closing, {**self.settings.options, "seed": 0, **adapter})
                own = [] if isinstance(opened, Through) else opened
                run = Run(rows(), self._task, self._record, own, writer, self.rows.length, retries, progress)
                try:
                    if isinstance(opened, Through):
                        opened.run(run)
                    else:
                        run.everything()
                finally:
                    self.counts = run.counts
        except KeyboardInterrupt:
            raise JobInterrupted(writer.next, self.output.path) from None
        except GenerationError as error:
            raise GenerationError(
                f"{error.message} {writer.next:,} rows are kept in {self.output.path}.",
                "The same call goes on from there.",
            ) from None

    def _task(self, row: Row) -> Task:
        settings = self.settings
        options = {**settings.options, "seed": (settings.seed + row.index) % _SEEDS}
        spec = settings.adapter
        if settings.adapter_column is not None:
            spec = row.values.get(settings.adapter_column)
        name = self._adapter(spec)
        if name is not None or any(one.model is not None and one.model.adapter for one in self.subjects):
            options["adapter"] = name
        return Task(row.index, settings.template.prompt(row.values), options)

    def _adapter(self, given: Any) -> str | None:
        """The `adapter=` of requests; the first use of each adapter notes its content.

        Raises:
            BadInputError: the adapter isn't the one of the rows that were answered before.
            LlmLabError: there is no such adapter.
        """
        name, source = adapter_of(given)
        if name is None:
            return None
        spec = str(given).strip()
        if spec not in self._sources:
            now = adapter_digest(spec, self.subjects[0].sources)
            before = self.adapters.get(spec)
            if before not in (None, now):
                raise StopError(
                    f"The adapter {spec} isn't the one of the rows that {self.output.path} has.",
                    "Give another output=, or begin again: fresh=True",
                )
            self._sources[spec] = name
            for subject in self.subjects:
                if source and isinstance(subject.sources, dict):
                    subject.sources.update(source)
            if before is None:
                self.adapters[spec] = now
                self._about["adapters"] = self.adapters
                self.output.describe(self._about)
        return name

    def _record(self, row: Row, answer: Mapping[str, Any]) -> dict[str, Any]:
        kept = row.kept if self.settings.columns is None else {
            name: row.kept[name] for name in self.settings.columns if name in row.kept
        }  # fmt: skip
        own = {f"input_{name}" if name in ANSWER else name: value for name, value in kept.items()}
        return {"row": row.index, **own, **answer}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> str:
    parts = []
    for name in names:
        one, other = before.get(name), now[name]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            inner = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            parts.append(f"the {_WORDS[name]} differs in {', '.join(inner[:4])}")
        else:
            parts.append(f"the {_WORDS[name]} differs")
    return "; ".join(parts)


# -- the call ----------------------------------------------------------------------------------


def run(
    data: Any,
    prompt: Any,
    *,
    model: str | Model | Sequence[str | Model] | None,
    output: str | Path | None,
    on: str,
    workers: int | None,
    engine: str,
    quant: str | None,
    ctx: int | None,
    adapter_column: str | None,
    columns: Sequence[str] | None,
    retries: int,
    shard_rows: int | None,
    fresh: bool,
    lab: Lab,
    progress: Progress | None,
    system: str | None,
    raw: bool,
    options: Mapping[str, Any],
) -> Mapped:
    """Run a job. Arguments and errors as `llmlab.map`."""
    from llmlab.jobs import cluster

    place = cluster.checked(on)
    rows = Rows(data)
    own, adapter, seed = _checked(options, rows, adapter_column, columns, retries, shard_rows)
    template = Template.of(prompt, rows.columns)
    own |= {"system": system} if system is not None else {}
    own |= {"raw": True} if raw else {}
    with hooks.progress("map", progress) as report, one_display():
        report("files", None)

        def loading(phase: str, _fraction: float | None) -> None:
            report(phase, None)  # the fraction is that of the rows

        subjects = models.find(model, lab, engine=engine, quant=quant, ctx=ctx, progress=loading)
        first = subjects[0].model
        if adapter is _DEFAULT:
            adapter = first.adapter if first is not None else None
        settings = Settings(template, own, adapter, adapter_column, seed, columns)
        folder = Path(output).expanduser() if output is not None else _folder(settings, subjects[0], rows)
        job = Job(rows, settings, subjects, Output(folder), shard_rows or SHARD_ROWS)
        opened: Any
        if place == "local":
            if workers is not None:
                raise BadInputError("workers= is the number of Ray's actors.", 'Leave it out, or add on="ray".')
            opened = _Local(subjects, loading)
        else:
            opened = cluster.Actors(place, subjects, workers, loading, adapter_column is not None)
        return job.run(opened, retries=retries, fresh=fresh, progress=report)


_DEFAULT: Any = object()


def _checked(
    options: Mapping[str, Any],
    rows: Rows,
    adapter_column: str | None,
    columns: Sequence[str] | None,
    retries: int,
    shard_rows: int | None,
) -> tuple[dict[str, Any], Any, int]:
    """(the options of every request, the adapter, the seed)."""
    own = dict(options)
    tools = [name for name in ToolOptions.__annotations__ if own.get(name) is not None]
    if tools or own.get("n", 1) != 1:
        name = tools[0] if tools else "n"
        raise UnsupportedError(f"A job doesn't take {name}=: it gives each row one answer.", "Leave it out.")
    own.pop("n", None)
    adapter, seed = own.pop("adapter", _DEFAULT), own.pop("seed", None) or 0
    SamplingParams.of({name: value for name, value in own.items() if name in SamplingParams.__dataclass_fields__})
    for name in (*([adapter_column] if adapter_column is not None else ()), *(columns or ())):
        if rows.columns and name not in rows.columns:
            raise unknown("column", name, rows.columns)
    if adapter_column is not None and adapter is not _DEFAULT:
        raise BadInputError("adapter= and adapter_column= can't be combined.", "Leave one of them out.")
    if not isinstance(retries, int) or retries < 0:
        raise BadInputError(f"retries must be 0 or more, got {retries!r}.")
    if shard_rows is not None and (not isinstance(shard_rows, int) or shard_rows < 1):
        raise BadInputError(f"shard_rows must be 1 or more, got {shard_rows!r}.")
    return own, adapter, seed


def _folder(settings: Settings, subject: models.Subject, rows: Rows) -> Path:
    """The folder of a job without output=: the same call finds it again."""
    key = digest([settings.as_dict(), settings.adapter, dict(subject.content), rows.fingerprint()])
    return config.data_dir() / "jobs" / key[:16]


@dataclass
class _Local:
    """Opens the workers of this process."""

    subjects: Sequence[models.Subject]
    report: Progress

    def __call__(self, closing: contextlib.ExitStack, options: Mapping[str, Any]) -> list[Worker]:
        found: list[Worker] = []
        for subject in self.subjects:
            model = subject.model
            if model is None:
                from llmlab.session import Lab

                lab = Lab()
                closing.callback(lab.close)
                model = lab.load(**subject.load, progress=self.report)
            worker = ModelWorker(model, subject.sources)
            check_options(model, options, subject.sources)
            closing.callback(worker.close)
            found.append(worker)
        return found
