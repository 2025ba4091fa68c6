"""Runs an experiment's cells: each model is loaded once, its requests run as one batch, every answer is kept."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmlab.engines.registry import ENGINES, REPLAY
from llmlab.errors import BadInputError, Interrupted, LlmLabError
from llmlab.experiments import identity
from llmlab.experiments.design import Design, Question, Setting, Subject, plain_constraint, plain_params
from llmlab.experiments.identity import Identity
from llmlab.experiments.store import Store, digest
from llmlab.inference.stream import CANCEL_WAIT_S
from llmlab.loading import replaying
from llmlab.loading.plan import make_plan
from llmlab.types.parallel import Parallel
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.loading.plan import Planned
    from llmlab.model import Model
    from llmlab.session import Lab

# Requests that are submitted at once: enough for any engine's batch, and few to repeat after a crash.
_IN_FLIGHT = 64
# The options of a load that an experiment sets itself.
_LOAD: dict[str, Any] = {
    "gpu_layers": None,
    "parallel": Parallel(),
    "max_concurrency": None,
    "force": False,
    "extra": {},
}

# Answers that are scored at once by the model that gave them.
_SCORED_AT_ONCE = 32

ModelScore = Callable[["Model", Sequence[Mapping[str, Any]], Sequence[Question]], list[Any]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One request of the experiment."""

    subject: Subject
    setting: Setting
    question: Question


@dataclass(slots=True)
class Result:
    """A cell's answer, or the reason why there is none.

    Attributes:
        key: the answer's key in the store; "" without an answer.
        body: the answer in JSON's types.
        error: why it failed.
    """

    cell: Cell
    key: str = ""
    body: Mapping[str, Any] | None = None
    error: str = ""


_Answer = tuple[Cell, dict[str, Any], str]  # with the request's digest


@dataclass(slots=True)
class _Job:
    """A model with the cells that it has to answer."""

    subject: Subject
    cells: list[Cell]
    identity: Identity | None = None
    planned: Planned | None = None
    error: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """Attached and loaded models first, then engine by engine, small models before large ones."""
        if self.subject.given is not None or self.planned is None:
            return -1, 0
        if self.planned.engine == REPLAY:
            return 0, 0
        places = list(ENGINES)
        estimate = self.planned.plan.source.header.weight_bytes
        return places.index(self.planned.engine), estimate


class Run:
    """One run of a design.

    Args:
        design: what to run.
        store: where answers are kept.
        lab: the lab in which attached models are looked up.
        ctx: the context length of every loaded model.
        scores: scorers that need the model that answered: name -> function of the model, answers and questions.
        progress: called with the phase and the fraction of all cells that is done.
        fresh: ignore the answers that are kept.
    """

    def __init__(
        self,
        design: Design,
        store: Store,
        lab: Lab,
        *,
        ctx: int | None,
        scores: Mapping[str, ModelScore],
        progress: Progress,
        fresh: bool,
    ) -> None:
        self._design, self._store, self._lab = design, store, lab
        self._ctx, self._scores, self._report, self._fresh = ctx, scores, progress, fresh
        self.results: dict[Cell, Result] = {}
        self.identities: dict[Subject, Identity] = {}
        self.computed = 0
        self._total = 1
        self._digests: dict[str, str] = {}

    def everything(self) -> list[Result]:
        """Answer every cell that isn't known yet; a model that can't be loaded makes its cells fail, with the reason.

        Raises:
            Interrupted: Ctrl-C; what was answered is kept.
        """
        questions = self._design.questions()
        cells = {
            subject: [
                Cell(subject, setting, question)
                for setting in self._design.settings_of(subject)
                for question in questions
            ]
            for subject in map(self._found, self._design.subjects())
        }
        self._total = max(sum(map(len, cells.values())), 1)
        jobs = [self._planned(_Job(subject, own)) for subject, own in cells.items()]
        for job in sorted(jobs, key=lambda one: one.order):
            self._run(job)
        return [self.results[cell] for own in cells.values() for cell in own]

    # -- one model -----------------------------------------------------------------------------

    def _found(self, subject: Subject) -> Subject:
        """A name that is an attached model of the lab stands for that model."""
        attached = self._lab.models.get(subject.model)
        if subject.given is None and attached is not None and attached.facts.server_side:
            return Subject(attached.name, attached.engine, attached.quant, attached)
        return subject

    def _planned(self, job: _Job) -> _Job:
        subject = job.subject
        self._say(f"{subject.label}: files")
        try:
            if subject.given is not None:
                job.identity = identity.of_model(subject.given)
            elif (recorded := self._recorded(subject)) is not None:
                job.planned, extra = recorded, recorded.plan.extra
                job.identity = identity.of_recorded(subject, extra["cassette"], extra["recorded"])
            else:
                job.planned = make_plan(
                    subject.model,
                    engine=subject.engine or "auto",
                    quant=subject.quant,
                    ctx=self._ctx,
                    progress=lambda phase, _fraction: self._say(f"{subject.label}: {phase}"),
                    lora=self._slots(),
                    **_LOAD,
                )
                job.identity = identity.of_plan(subject, job.planned.engine, job.planned.plan)
            self.identities[subject] = job.identity
        except LlmLabError as error:
            job.error = str(error)
        return job

    def _recorded(self, subject: Subject) -> Planned | None:
        """The plan of a model in recorded answers; None while none are replayed."""
        asked = replaying.given(
            engine=subject.engine or "auto", quant=subject.quant, ctx=self._ctx, draft=None, extra=None
        )
        return replaying.planned(subject.model, asked)

    def _run(self, job: _Job) -> None:
        if job.identity is None:
            return self._fail(job.cells, job.error)
        found: dict[str, Any] = {}
        requests: dict[Cell, str] = {}
        for cell in job.cells:
            try:
                requests[cell] = self._request(job.identity, cell)
            except LlmLabError as error:
                self._fail([cell], str(error))
        if not self._fresh:
            found = self._store.find(requests.values())
        missing = [cell for cell, request in requests.items() if request not in found]
        unscored = [cell for cell, request in requests.items() if request in found and self._lacks(found[request])]
        for cell, request in requests.items():
            if request in found:
                self._keep(Result(cell, found[request]["key"], found[request]))
        if missing or unscored:
            with contextlib.ExitStack() as closing:
                model = self._opened(job, closing)
                if model is None:
                    return self._fail(missing, job.error)
                if missing:
                    self._answer(model, {cell: requests[cell] for cell in missing})
                for start in range(0, len(unscored), _SCORED_AT_ONCE):
                    part = unscored[start : start + _SCORED_AT_ONCE]
                    self._score(model, [(cell, dict(found[requests[cell]]), requests[cell]) for cell in part])
        return None

    def _opened(self, job: _Job, closing: contextlib.ExitStack) -> Model | None:
        """The model, ready for requests; None, with the job's error, if it can't be."""
        subject = job.subject
        try:
            model = subject.given
            if model is None:
                from llmlab.session import Lab

                lab = Lab()
                closing.callback(lab.close)
                self._say(f"{subject.label}: loading")
                model = lab.load(
                    subject.model,
                    engine=subject.engine or "auto",
                    quant=subject.quant,
                    ctx=self._ctx,
                    lora=self._slots(),
                    progress=lambda phase, _fraction: self._say(f"{subject.label}: {phase}"),
                )
        except LlmLabError as error:
            job.error = str(error)
            return None
        return model

    def _slots(self) -> int | None:
        used = sum(value is not None for value in self._design.adapters.values())
        return used or None

    # -- requests ------------------------------------------------------------------------------

    def _request(self, own: Identity, cell: Cell) -> str:
        """The key of what is known of a request before the model is loaded."""
        design, setting = self._design, cell.setting
        return digest(
            {
                "model": own.key,
                "messages": [turn.as_dict() for turn in cell.question.messages],
                "system": design.systems[setting.system],
                "params": plain_params(design.params[setting.params]),
                "constraint": plain_constraint(design.constraints[setting.constraint]),
                "adapter": self._adapter(design.adapters[setting.adapter], cell.subject),
                "seed": setting.request_seed,
                "repeat": setting.repeat,
            }
        )

    def _adapter(self, spec: str | None, subject: Subject) -> str:
        if spec is None:
            return ""
        given = subject.given
        sources = {entry.name: entry.spec for entry in given.adapter_entries()} if given is not None else {}
        place = f"{subject.model if given is not None else ''} {spec}"
        if place not in self._digests:
            self._digests[place] = identity.adapter_digest(spec, sources)
        return self._digests[place]

    def _answer(self, model: Model, requests: Mapping[Cell, str]) -> None:
        """Answer cells with a loaded model; many are in flight at once, so that the engine batches them."""
        ready: dict[str, str] = {}
        streams = self._streams(model, requests, ready)
        waiting: collections.deque[tuple[Cell, Stream]] = collections.deque()
        answered: list[_Answer] = []
        most = _SCORED_AT_ONCE if self._scores else 1

        def finish(cell: Cell, stream: Stream) -> None:
            self._finish(model, cell, stream, requests[cell], answered)
            if len(answered) >= most:
                self._score(model, answered)
                answered.clear()

        try:
            for cell, stream in streams:
                waiting.append((cell, stream))
                if len(waiting) >= _IN_FLIGHT:
                    finish(*waiting.popleft())
            while waiting:
                finish(*waiting.popleft())
            self._score(model, answered)
        except BaseException as error:
            for _, stream in waiting:
                stream.cancel(wait_s=0)
            for _, stream in waiting:
                stream.wait(CANCEL_WAIT_S)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted from None
            raise

    def _streams(
        self, model: Model, requests: Mapping[Cell, str], attached: dict[str, str]
    ) -> Iterator[tuple[Cell, Stream]]:
        """Started requests; a cell that the model refuses fails, and the others go on."""
        for cell in requests:
            try:
                options = self._options(model, cell, attached)
                system = self._design.systems[cell.setting.system]
                stream = model.stream(list(cell.question.messages), system=system, **options)
                stream.start()
            except LlmLabError as error:
                self._fail([cell], str(error))
                continue
            yield cell, stream

    def _options(self, model: Model, cell: Cell, attached: dict[str, str]) -> dict[str, Any]:
        design, setting = self._design, cell.setting
        params = replace(design.params[setting.params], seed=setting.request_seed)
        options: dict[str, Any] = {"params": params, **design.constraints[setting.constraint]}
        spec = design.adapters[setting.adapter]
        if spec is None:
            if model.adapter is not None:
                options["adapter"] = None
            return options
        if spec not in attached:
            attached[spec] = _attach(model, setting.adapter, spec)
        return {**options, "adapter": attached[spec]}

    def _finish(self, model: Model, cell: Cell, stream: Stream, request: str, answered: list[_Answer]) -> None:
        """Keep an answer, and add it to those that are to be scored."""
        try:
            done = stream.result()
        except LlmLabError as error:
            return self._fail([cell], str(error))
        body = _body(model, done, stream)
        body["key"] = digest({"request": request, "ids": body["prompt_ids"]})
        self._store.put(body["key"], request, body)
        self.computed += 1
        answered.append((cell, body, request))
        return None

    def _score(self, model: Model, answers: Sequence[_Answer]) -> None:
        """Add the scores that take the model which answered."""
        for name, score in self._scores.items():
            lacking: dict[str, list[_Answer]] = {}
            for one in answers:
                if name not in one[1]["scores"]:
                    lacking.setdefault(one[0].setting.adapter, []).append(one)
            for label, own in lacking.items():
                self._score_one(model, name, score, label, own)
        for cell, body, request in answers:
            if self._scores:
                self._store.put(body["key"], request, body)
            self._keep(Result(cell, body["key"], body))

    def _score_one(self, model: Model, name: str, score: ModelScore, label: str, answers: Sequence[_Answer]) -> None:
        """One score of answers by one adapter, all at once, or one by one if one of them can't be scored."""
        try:
            spec = self._design.adapters[label]
            adapter = _attach(model, label, spec) if spec is not None else None
            bodies = [{**body, "adapter": adapter} for _, body, _ in answers]
            values = score(model, bodies, [cell.question for cell, _, _ in answers])
        except LlmLabError as error:
            if len(answers) > 1:
                for one in answers:
                    self._score_one(model, name, score, label, [one])
                return
            values = [None]
            answers[0][1]["notes"][name] = str(error)
        for (_, body, _), value in zip(answers, values, strict=True):
            body["scores"][name] = value

    def _lacks(self, body: Mapping[str, Any]) -> bool:
        return any(name not in body["scores"] for name in self._scores)

    # -- results -------------------------------------------------------------------------------

    def _keep(self, result: Result) -> None:
        self.results[result.cell] = result
        self._say(result.cell.subject.label)

    def _fail(self, cells: Sequence[Cell], reason: str) -> None:
        for cell in cells:
            self._keep(Result(cell, error=reason))

    def _say(self, phase: str) -> None:
        self._report(phase, len(self.results) / self._total)


def _attach(model: Model, label: str, spec: str) -> str:
    """Attach an adapter unless it is; returns the `adapter=` of requests."""
    if "/" in spec or "\\" in spec:
        if label not in model.adapters:
            model.add_adapter(label, spec)
        return label
    from llmlab.adapters.attached import parse

    for name, _ in parse(spec):
        if name not in model.adapters:
            model.add_adapter(name, name)
    return spec


def _body(model: Model, done: Any, stream: Stream) -> dict[str, Any]:
    """A completion in JSON's types."""
    ids = list(done.token_ids)
    prompt, prompt_ids, note = done.prompt, list(done.prompt_token_ids), ""
    served = model.facts.server_side
    if served and not prompt_ids:
        with contextlib.suppress(LlmLabError):
            read = stream.reading()
            prompt, prompt_ids, note = read.text or "", list(read.ids or ()), read.note
    prices = model.plan.extra.get("prices")
    spent = (done.usage.prompt_tokens, done.usage.completion_tokens)
    cost = sum(price * count for price, count in zip(prices, spent, strict=True)) / 1e6 if prices else None
    return {
        "text": done.text,
        "token_ids": ids,
        "pieces": [model.token_text(one) for one in ids] if not served else [],
        "reasoning": done.reasoning,
        "finish_reason": done.finish_reason,
        "parse_error": done.choices[0].parse_error,
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "prompt_note": note,
        "prompt_tokens": done.usage.prompt_tokens,
        "tokens": done.usage.completion_tokens,
        "seconds": done.timings.total_s,
        "ttft_s": done.timings.ttft_s,
        "tokens_per_s": done.timings.tokens_per_s,
        "cost": cost,
        "probabilities": dict(done.probabilities) if done.probabilities is not None else None,
        "engine": done.engine,
        "quant": done.quant,
        "context": model.facts.context_length,
        "versions": identity.versions(),
        "scores": {},
        "notes": {},
    }


def check_scorable(names: Sequence[str]) -> None:
    """Refuse two scorers of one name."""
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise BadInputError(f"Two scorers are called {twice[0]}.", "Give one another name: @llmlab.scorer(name=...).")
