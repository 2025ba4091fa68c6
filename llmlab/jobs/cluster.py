"""Jobs on Ray: actors that each hold an engine, and answer rows as a model of this process does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, EngineMissingError, LlmLabError, LoadError
from llmlab.jobs import raydata
from llmlab.jobs.workers import Outcome, Ready, Task, Worker, answers, attach_named, check_options, outcome

if TYPE_CHECKING:
    from llmlab.jobs.models import Subject
    from llmlab.types.progress import Progress

LOCAL, RAY, CLIENT = "local", "ray", "ray://"
_DEATHS_IN_A_ROW = 3
_PROBE_S = 60.0
# Ray gives its agents, which are Python processes, 15 seconds to start: too few on a busy machine.
_STARTS = 3
# Where this machine's files are; the nodes of another cluster have their own.
_FOLDERS = ("LLMLAB_CACHE", "LLMLAB_DATA", "LLMLAB_LOGS", "LLMLAB_MODELS")


def checked(on: str) -> str:
    """Check where a job is to run.

    Raises:
        BadInputError: it is no such place.
        EngineMissingError: Ray isn't installed.
    """
    if on == LOCAL:
        return on
    if on != RAY and not on.startswith(CLIENT):
        raise BadInputError(f"on={on!r} is no place to run a job.", 'Known: "local", "ray", "ray://HOST:PORT".')
    try:
        _imports.load("ray")
    except ImportError:
        raise EngineMissingError('on="ray" needs the package ray.', 'pip install "llmlab[ray]"') from None
    return on


class EngineActor:
    """A model in a process of Ray's. Its methods run there.

    Args:
        load: the arguments of `Lab.load`.
        environment: environment variables of the driver.
    """

    def __init__(self, load: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        from llmlab.session import Lab

        self._lab = Lab()
        self._problem = ""
        try:
            self._model = self._lab.load(**load)
        except LlmLabError as error:
            self._problem = str(error)

    async def check(self, options: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[str, str]:
        """(why the model can't be loaded, why it doesn't take the options); "" if it can."""
        if self._problem:
            return self._problem, ""
        try:
            check_options(self._model, options, sources)
        except LlmLabError as error:
            return "", str(error)
        return "", ""

    async def answer(self, task: Task, sources: Mapping[str, str]) -> Outcome:
        """Answer a row."""
        try:
            attach_named(self._model, task.options.get("adapter"), sources)
            prompt = task.prompt if isinstance(task.prompt, str) else list(task.prompt)
            stream = self._model.stream(prompt, **task.options)
            with contextlib.suppress(LlmLabError):
                await stream.aresult()
        except LlmLabError as error:
            return Outcome("row", error=str(error))
        return outcome(stream)

    async def alive(self) -> bool:
        """Whether the engine answers."""
        return answers(self._model)


class ActorWorker:
    """One actor, and the next one after it has died.

    Args:
        name: what it is called in results.
        make: starts an actor.
        limit: most rows at once.
        sources: name -> where an adapter is.
    """

    def __init__(self, name: str, make: Any, limit: int, sources: Mapping[str, str]) -> None:
        self.name = name
        self.limit = limit
        self.actor: Any = make()
        self._make = make
        self._sources = sources
        self._running: dict[int, Any] = {}
        self._deaths = 0

    def start(self, task: Task, ready: Ready) -> None:
        """See `Worker`."""
        reference = self.actor.answer.remote(task, dict(self._sources))
        self._running[task.index] = reference
        reference.future().add_done_callback(lambda _: ready(self, task.index))

    def finish(self, index: int) -> Outcome:
        """See `Worker`."""
        import ray

        reference = self._running.pop(index)
        try:
            found: Outcome = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            return Outcome("gone", error=_first_line(error))
        except ray.exceptions.RayError as error:
            return Outcome("again", error=_first_line(error))
        if found.kind == "done":
            self._deaths = 0
        return found

    def alive(self) -> bool:
        """See `Worker`."""
        import ray

        try:
            return bool(ray.get(self.actor.alive.remote(), timeout=_PROBE_S))
        except ray.exceptions.RayError:
            return False

    def revive(self) -> bool:
        """See `Worker`. Rows that are given to the new actor wait until it has loaded its model."""
        self._deaths += 1
        if self._deaths > _DEATHS_IN_A_ROW:
            return False
        self.actor = self._make()
        return True

    def drop(self) -> None:
        """See `Worker`: the actor ends, and its requests with it."""
        import ray

        self._running.clear()
        actor, self.actor = self.actor, None
        if actor is not None:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(actor)

    def close(self) -> None:
        """See `Worker`."""
        self.drop()


@dataclass
class Actors:
    """Opens a job's workers on Ray.

    Args:
        place: "ray", or the address of a cluster.
        subjects: the model.
        workers: how many actors; None: one per GPU, or one per node without GPUs.
        report: called with the phase.
        adapters: rows have adapters.
    """

    place: str
    subjects: Sequence[Subject]
    workers: int | None
    report: Progress
    adapters: bool = False

    def __call__(self, closing: contextlib.ExitStack, options: Mapping[str, Any]) -> list[Worker] | raydata.Through:
        """Connect, load the models and check that they take the options.

        Raises:
            BadInputError: the model can't be loaded by another process, or the cluster has no place for it.
            LoadError: an actor can't load it.
        """
        subject = self.subjects[0]
        if len(self.subjects) > 1 or not subject.load:
            raise BadInputError(
                f"{subject.label} runs on a server, and Ray's actors load the model themselves.",
                'Name a model to load, or leave out on="ray".',
            )
        self.report("connecting to Ray", None)
        connect(self.place, self.workers or 1, closing)
        import ray

        total = ray.cluster_resources()
        gpus = int(total.get("GPU", 0))
        if raydata.suits(subject, options, gpus=gpus, adapters=self.adapters):
            return raydata.Through(raydata.plan_of(subject, gpus=gpus, workers=self.workers))
        each = subject.plan.parallel.gpus if subject.plan is not None and gpus else 0
        count = self.workers or (gpus // each if each else sum(bool(node["Alive"]) for node in ray.nodes())) or 1
        if count * each > gpus or count > int(total.get("CPU", 0)):
            raise BadInputError(
                f"The cluster has {int(total.get('CPU', 0))} CPUs and {gpus} GPUs, too few for {count} workers.",
                "Lower workers=, or add nodes.",
            )
        environment = {} if self.place.startswith(CLIENT) else {
            name: os.environ[name] for name in _FOLDERS if name in os.environ
        }  # fmt: skip
        most = int(subject.plan.max_concurrency if subject.plan is not None else 8)
        remote = ray.remote(num_cpus=1, num_gpus=each, max_concurrency=4 * most)(EngineActor)

        def make() -> Any:
            return remote.remote(dict(subject.load), environment)

        found = []
        for index in range(count):
            found.append(ActorWorker(f"actor {index}", make, 2 * most, subject.sources))
            closing.callback(found[-1].close)
        self.report(f"{count} actors load {subject.label}", None)
        checks = [worker.actor.check.remote(dict(options), dict(subject.sources)) for worker in found]
        for load, refused in ray.get(checks):
            if load:
                raise LoadError(f"An actor can't load {subject.label}: {load}")
            if refused:
                raise BadInputError(refused)
        return list(found)


def connect(place: str, cpus: int, closing: contextlib.ExitStack) -> None:
    """Connect to a cluster; a local one that is started here ends with the job.

    Raises:
        BadInputError: the cluster can't be reached.
    """
    import ray

    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if place.startswith(CLIENT):
        options["address"] = place
    elif not os.environ.get("RAY_ADDRESS"):
        cores = max(os.cpu_count() or 1, cpus)
        options |= {"address": LOCAL, "num_cpus": cores, "include_dashboard": False}
    for attempt in range(_STARTS):
        try:
            ray.init(**options)
            break
        except ImportError as error:
            raise EngineMissingError(f"{place} needs Ray's client: {error}.", 'pip install "ray[client]"') from None
        except Exception as error:  # noqa: BLE001 - Ray raises bare ones
            ray.shutdown()
            if attempt + 1 == _STARTS or place.startswith(CLIENT):
                raise BadInputError(f"Ray can't be reached: {_first_line(error)}", "Is the cluster up?") from None
    closing.callback(ray.shutdown)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
