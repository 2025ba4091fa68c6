"""The `Lab`, a session: the loaded models, the current one, and the conversations."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, Unpack

from llmlab import _imports, config
from llmlab.engines.base import Engine, EngineLog, LoadPlan
from llmlab.engines.registry import check_name, engine_class
from llmlab.errors import BadInputError, DoesNotFitError, Interrupted, LlmLabError, LoadError, UnknownNameError, unknown
from llmlab.hub import catalogue
from llmlab.inference.conversation import History
from llmlab.inference.request import IMPORTS
from llmlab.loading import attachment, replaying
from llmlab.loading.attachment import plan_attach
from llmlab.loading.parallel import parallel_of
from llmlab.loading.plan import Planned, make_plan
from llmlab.loading.switch import Switch, carry_over, plan_reload, plan_switch
from llmlab.model import Model
from llmlab.options import AttachOptions, EngineOption, known_keywords
from llmlab.render import units
from llmlab.runlog import Ledger, RunLog
from llmlab.types.progress import Progress

LOGS_KEPT = 20


class Served(Protocol):
    """The HTTP server of a Lab's models (`llmlab.serving.Server`)."""

    @property
    def url(self) -> str:
        """Where it answers."""

    def stop(self) -> None:
        """End it."""


class Lab:
    """A session: loaded models by name, one of them current.

    A failed or interrupted load leaves loaded models untouched: a model with the same name is replaced only
    after the new one is ready.

    Example:
        >>> lab = llmlab.Lab()
        >>> model = lab.load("nano", engine="llamacpp", name="mine")
        >>> list(lab.models), lab.current.name
        (['mine'], 'mine')
        >>> lab.close()
    """

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._current: str | None = None
        self._last_log: EngineLog | None = None
        # One load or unload at a time, so that each memory estimate sees the result of the previous one.
        self._loading = threading.Lock()
        self.history = History()
        self.runlog = RunLog()
        self.ledger = Ledger(self.runlog)
        self.server: Served | None = None

    # -- loading -------------------------------------------------------------------------------

    @known_keywords
    def load(
        self,
        model: str,
        *,
        engine: str = "auto",
        quant: str | None = None,
        name: str | None = None,
        ctx: int | None = None,
        gpu_layers: int | None = None,
        tp: int = 1,
        pp: int = 1,
        nodes: int = 1,
        executor: str | None = None,
        max_concurrency: int | None = None,
        force: bool = False,
        extra: Mapping[str, EngineOption] | None = None,
        progress: Progress | None = None,
        draft: str | None = None,
        from_: str | None = None,
        lora: int | None = None,
    ) -> Model:
        """Load a model and make it the current one.

        Args:
            model: a catalogue name, a path to a GGUF file or a Hugging Face folder, or `hf:org/repo`.
            engine: vllm, llamacpp, or auto, which chooses and gives the reason (`Model.reason`).
            quant: quant tag; None: the model's default for the engine.
            name: its name in the lab; None: the model's own name.
            ctx: context length in tokens; None: the trained one, or what fits.
            gpu_layers: layers on the GPU (llamacpp); None: the engine chooses.
            tp: GPUs that each layer is split over (vllm).
            pp: groups of GPUs that each have a part of the layers (vllm).
            nodes: machines that share those GPUs (vllm): a Ray cluster that this kernel has joined.
            executor: what starts vllm's processes: mp or ray; None: mp, or ray for several nodes.
            max_concurrency: most sequences decoded at once; others wait.
            force: load even if the memory estimate doesn't fit.
            extra: engine options by name, like `-x KEY=VALUE`.
            progress: called with (phase, fraction from 0 to 1 or None) on this thread during the load.
            draft: the draft for speculative decoding: a smaller model with the same tokenizer, or "ngram", which
                looks up the last tokens in the text so far.
            from_: where to get a quant that the catalogue doesn't list: an author, or a repository
                `org/name[@revision]`.
            lora: adapter slots: most different LoRA adapters at once (vllm; llamacpp needs no slots). None: the
                engine's default.

        Returns:
            The model, ready for prompts.

        Raises:
            UnknownNameError: unknown model, engine, quant or option.
            UnsupportedError: the engine doesn't support a requested option.
            DoesNotFitError: not enough memory.
            LoadError: the files are damaged, or the engine failed; `log_tail` has the end of its log.
            Interrupted: Ctrl-C; everything has been released.

        Example:
            >>> model = llmlab.lab().load("nano", engine="llamacpp", name="short", ctx=512)
            >>> model.facts.context_length
            512
            >>> llmlab.lab().unload("short")
            ['short']
        """
        if name is not None:
            _check_name(name)
        if extra is not None and not isinstance(extra, Mapping):
            raise BadInputError(f"extra must be a dict, got {extra!r:.80}.", 'For example extra={"n_threads": 2}')
        _imports.load(*IMPORTS)
        report = progress or (lambda _phase, _fraction: None)
        asked = replaying.given(engine=engine, quant=quant, ctx=ctx, draft=draft, extra=extra)
        recorded = replaying.planned(model, asked)
        with self._loading:
            planned = recorded or self._fitting(
                model,
                engine=engine,
                quant=quant,
                ctx=ctx,
                gpu_layers=gpu_layers,
                parallel=parallel_of(tp, pp, 1, nodes, executor),
                max_concurrency=max_concurrency,
                force=force,
                extra=extra or {},
                progress=report,
                draft=draft,
                from_=from_,
                lora=lora,
            )
            final_name = name or planned.plan.source.name
            loaded = self._start(final_name, planned, report)
            loaded.note_request(asked)
            replaced = self._models.pop(final_name, None)
            self._models[final_name] = loaded
            if loaded.facts.embedding is None or self._current in (None, final_name):
                self._current = final_name  # an embedding model doesn't take the cells away from another
            if replaced is not None:
                if replaced.source.name == loaded.source.name:
                    lost = carry_over(replaced.adapter_specs(), loaded)
                    loaded.reason = "; ".join(note for note in (loaded.reason, lost) if note)
                replaced.unload()
            return loaded

    @known_keywords
    def attach(self, url: str, *, progress: Progress | None = None, **options: Unpack[AttachOptions]) -> Model:
        """Attach a model of a server to this lab, and make it the current one. `unload` detaches it.

        The keywords are those of `llmlab.attach`, and so are the errors.

        Args:
            url: where the server answers: "http://127.0.0.1:8000", "https://api.example.com/v1".

        Returns:
            The model: it answers prompts like a loaded one, and refuses by name what its server can't do. In a replay
            (`replay_answers`) it is the recorded one, and no server is asked.

        Example:
            >>> server = llmlab.serve(port=0)
            >>> lab = llmlab.Lab()
            >>> far = lab.attach(server.url, name="far", model="nano")
            >>> lab.close()
            >>> server.stop()
        """
        name, tokenizer = options.get("name"), options.get("tokenizer")
        if name is not None:
            _check_name(name)
        counter = self.get(tokenizer) if tokenizer is not None else None
        count = (lambda text: len(counter.tokenize(text))) if counter is not None else None
        planned = replaying.attached(name, options.get("model")) or plan_attach(url, options, count=count)
        _imports.load(*IMPORTS, *attachment.IMPORTS)
        report = progress or (lambda _phase, _fraction: None)
        with self._loading:
            loaded = self._start(name or "attached", planned, report)
            unnamed = loaded.source.name if loaded.replays else attachment.free_name(loaded, self._models)
            loaded.name = name or unnamed
            replaced = self._models.pop(loaded.name, None)
            self._models[loaded.name] = loaded
            self._current = loaded.name
            if replaced is not None:
                replaced.unload()
            return loaded

    @known_keywords
    def switch_quant(self, quant: str, *, name: str | None = None, progress: Progress | None = None) -> Model:
        """Replace a loaded model with another quant of it; the `Model` object stays the same.

        It keeps the conversation, the sampling defaults, the adapters, the context length, and the engine options that
        the new engine supports. A tag of the other engine changes the engine too. Running requests end as
        interrupted. `Model.reason` reports what was done.

        Args:
            quant: the tag. An exact canonical name selects that tag (`bf16` is vllm's, `BF16` llamacpp's); any
                other spelling is matched with the running engine's tags first.
            name: the model's name; None: the current one.
            progress: as in `load`.

        Returns:
            The same model, with the new quant; unchanged if it already has that quant.

        Raises:
            UnknownNameError: no such model or tag.
            UnsupportedError: the model, the engine or this machine doesn't support that quant; nothing was changed.
            DoesNotFitError: it wouldn't fit even on its own; nothing was changed.
            LoadError, Interrupted: as in `load`; the old quant stays loaded (reloaded if it had to be freed first).

        Example:
            >>> model = llmlab.lab().load("nano", engine="llamacpp", name="small")
            >>> llmlab.lab().switch_quant("Q4_K_M", name="small").quant
            'Q4_K_M'
            >>> llmlab.lab().unload("small")
            ['small']
        """
        report = progress or (lambda _phase, _fraction: None)
        with self._loading:
            model = self.get(name)
            was = model.quant
            if self._replay_switch(model, {"quant": quant}):
                return model
            switch = plan_switch(model, quant, report)
            if switch is not None:
                self._exchange(model, switch, report)
                model.reason = f"{was} → {model.quant}; {model.reason}".removesuffix("; ")
            return model

    @known_keywords
    def reload(
        self, name: str | None = None, *, extra: Mapping[str, EngineOption], progress: Progress | None = None
    ) -> Model:
        """Load a model again with other engine options; the `Model` object stays the same.

        It keeps what `switch_quant` keeps. Running requests end as interrupted.

        Args:
            name: the model's name; None: the current one.
            extra: engine options by name, over those that it was loaded with.
            progress: as in `load`.

        Returns:
            The same model.

        Raises:
            UnknownNameError: no such model or option.
            UnsupportedError: the engine doesn't support a value; nothing was changed.
            DoesNotFitError: it wouldn't fit even on its own; nothing was changed.
            LoadError, Interrupted: as in `load`; the model stays loaded as it was.

        Example:
            >>> model = llmlab.lab().load("nano", engine="llamacpp", name="again")
            >>> llmlab.lab().reload("again", extra={"n_threads": 1}).plan.extra["n_threads"]
            1
            >>> llmlab.lab().unload("again")
            ['again']
        """
        report = progress or (lambda _phase, _fraction: None)
        with self._loading:
            model = self.get(name)
            if not self._replay_switch(model, {"extra": dict(extra)}):
                self._exchange(model, plan_reload(model, extra, report), report)
            return model

    def _fitting(self, model: str, **options: Any) -> Planned:
        """The plan of a load. One that doesn't fit beside the loaded models says which of them to unload.

        Raises:
            DoesNotFitError: it doesn't fit.
        """
        try:
            return make_plan(model, corrections=self.ledger.correction, **options)
        except DoesNotFitError as error:
            held = {
                name: memory.resident or 0
                for name, memory in ((one.name, one.memory()) for one in self._models.values() if one.url is None)
            }
            ways = [f"%llm unload {name} (frees about {units.size(size)})" for name, size in held.items() if size]
            if not ways:
                raise
            raise DoesNotFitError(error.message, f"{error.hint} Or first {' or '.join(ways)}.") from None

    def _replay_switch(self, model: Model, asked: dict[str, object]) -> bool:
        """Turn a replayed model into another recorded one; False for a model that isn't replayed."""
        planned = replaying.planned(model.source.spec, asked) if model.replays else None
        if planned is None:
            return False
        adapters, places, current = model.adapter_specs(), list(self._models), self._current
        model.become(self._start(model.name, planned, lambda _phase, _fraction: None))
        self._restore_place(model, places, current)
        model.reason = "; ".join(note for note in (model.reason, carry_over(adapters, model)) if note)
        return True

    def _exchange(self, model: Model, switch: Switch, report: Progress) -> None:
        """Carry out a switch. The caller holds `_loading`."""
        started = time.perf_counter()
        before, engine = model.plan, check_name(model.engine)
        adapters = model.adapter_specs()
        places, current = list(self._models), self._current
        if switch.first_release:
            model.unload()
        try:
            new = self._start(model.name, switch.planned, report)
        except BaseException:
            if switch.first_release:
                back = self._start(model.name, replace(switch.planned, engine=engine, plan=before), report)
                model.become(back)
                self._restore_place(model, places, current)
                carry_over(adapters, model)
            raise
        model.become(new)
        self._restore_place(model, places, current)
        model.load_s = time.perf_counter() - started
        model.reason = "; ".join(note for note in (*switch.notes, carry_over(adapters, model)) if note)

    def _restore_place(self, model: Model, places: list[str], current: str | None) -> None:
        """Put a reloaded model back at its position, and restore the current model."""
        known = self._models | {model.name: model}
        self._models = {name: known[name] for name in (*places, *known) if name in known}
        self._current = current if current in known else model.name

    def _start(self, name: str, planned: Planned, report: Progress) -> Model:
        """Open an engine for a plan and wrap it in a Model. The caller holds `_loading` and registers it."""
        cls = engine_class(planned.engine)
        log = self._new_log(name, planned.engine)
        before = self.ledger.start()
        started = time.perf_counter()
        try:
            opened = _open(cls, planned.plan, log, report)
        except BaseException:
            log.close()
            raise
        # Use the engine's final context length, which may be shorter than planned.
        plan = replace(planned.plan, context_length=opened.facts.context_length)
        took = time.perf_counter() - started
        if planned.estimate is not None:
            self.ledger.loaded(id(opened), before, _facts(planned, opened))
        return Model(
            name,
            opened,
            plan,
            estimate=planned.estimate,
            reason=planned.reason,
            load_s=took,
            log=log,
            unloaded=_weakly(self._forget),
            closing=functools.partial(_close, self.ledger),
            recommended=catalogue.recommended(planned.plan.source.name),
        )

    def _forget(self, model: Model) -> None:
        """Remove a model that was unloaded (possibly by `Model.unload()`); the last loaded one becomes current."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
        if self._current not in self._models:
            self._current = next(reversed(self._models), None)

    # -- loaded models -------------------------------------------------------------------------

    @property
    def models(self) -> dict[str, Model]:
        """The loaded models by name (a copy)."""
        return dict(self._models)

    @property
    def current(self) -> Model | None:
        """The model for requests that name none."""
        return self._models.get(self._current) if self._current is not None else None

    def get(self, name: str | Model | None = None) -> Model:
        """A loaded model by name, or the current one.

        Args:
            name: the model's name, or the model itself; None: the current one.

        Returns:
            The model.

        Raises:
            UnknownNameError: no model is loaded, or none with that name.

        Example:
            >>> llmlab.lab().get("nano").name
            'nano'
        """
        if name is None:
            if self.current is None:
                raise UnknownNameError("No model is loaded.", "Load one: %llm load nano")
            return self.current
        name = name if isinstance(name, str) else getattr(name, "name", repr(name))
        if name not in self._models:
            hint = f"Load it: %llm load {name}" if not self._models else "See %llm ls."
            raise unknown("loaded model", name, self._models, hint)
        return self._models[name]

    def use(self, name: str) -> Model:
        """Make a loaded model the current one.

        Args:
            name: the model's name.

        Returns:
            The model.

        Raises:
            UnknownNameError: no model with that name is loaded.

        Example:
            >>> llmlab.lab().use("nano")
            <Model nano: llamacpp, F16, context 2048>
        """
        model = self.get(name)
        self._current = name
        return model

    def unload(self, name: str | None = None, *, everything: bool = False) -> list[str]:
        """Unload a model, or all of them. The last loaded of the others becomes current.

        Args:
            name: the model's name; None: the current one.
            everything: unload all models.

        Returns:
            The names of the unloaded models.

        Raises:
            UnknownNameError: no model with that name is loaded.
            BadInputError: both a name and `everything` were given.

        Example:
            >>> model = llmlab.load("nano", engine="llamacpp", name="other")
            >>> llmlab.lab().unload("other")
            ['other']
        """
        with self._loading:
            if everything and name is not None:
                raise BadInputError(
                    "Got both a model's name and `everything`.", "Use %llm unload NAME, or %llm unload --all."
                )
            names = list(self._models) if everything else [self.get(name).name]
            try:
                for one in names:
                    model = self._models.pop(one)
                    self._forget(model)
                    model.unload()
            finally:
                # Also set the current model if an engine failed to close.
                if self._current not in self._models:
                    self._current = next(reversed(self._models), None)
            return names

    def logs(self, name: str | None = None, lines: int = 50) -> str:
        """The last lines of an engine's log.

        Args:
            name: the model's name; None: the most recent log, including a failed load's.
            lines: number of lines.

        Returns:
            The lines, newest last.

        Raises:
            UnknownNameError: no model with that name is loaded.

        Example:
            >>> print(llmlab.lab().logs("nano", lines=2))  # doctest: +VARIES
            sched_reserve: graph: nodes = 204, splits = 1, input objects = 4, input tensors = 6
            sched_reserve: reserve took 4.02 ms, sched copies = 1
        """
        log = self.get(name).log if name is not None else self._last_log
        if log is None:
            return "No engine has been started yet."
        return log.tail(lines)

    def close(self) -> None:
        """Stop the server, unload all models, and write the run log's pending entries.

        Example:
            >>> lab = llmlab.Lab()
            >>> lab.close()
        """
        if self.server is not None:
            self.server.stop()
        self.unload(everything=True)
        self.runlog.close()

    def __repr__(self) -> str:
        return f"<Lab: {', '.join(repr(m) for m in self.models.values()) or 'no model loaded'}>"

    def _new_log(self, name: str, engine: str) -> EngineLog:
        folder = config.log_dir()
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)[
            :60
        ]  # file names are limited to 255 bytes
        with contextlib.suppress(OSError):
            for old in sorted(folder.glob("*.log"), key=lambda path: path.name)[:-LOGS_KEPT]:
                old.unlink(missing_ok=True)
        self._last_log = EngineLog(folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{engine}-{safe}.log")
        return self._last_log


def _weakly(method: Callable[[Model], None]) -> Callable[[Model], None]:
    """A weakly bound method: a model must not keep its Lab, and with it all other models, alive."""
    reference = weakref.WeakMethod(method)

    def call(model: Model) -> None:
        found = reference()
        if found is not None:
            found(model)

    return call


def _close(ledger: Ledger, engine: Engine) -> None:
    """Close a model's engine, and note in the ledger what came back."""
    held = ledger.unloading(id(engine))
    engine.close()
    ledger.unloaded(id(engine), held)


def _facts(planned: Planned, engine: Engine) -> dict[str, object]:
    """What the memory ledger has of a load."""
    estimate, plan = planned.estimate, planned.plan
    assert estimate is not None
    return {
        "model": plan.source.name, "engine": planned.engine, "quant": plan.source.quant, "device": estimate.device,
        "context": engine.facts.context_length, "concurrency": plan.max_concurrency,
        "estimated": estimate.total - estimate.correction,
    }  # fmt: skip


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name or any(c.isspace() or c in ":+,=" for c in name):
        raise BadInputError(
            f"Invalid model name {name!r}.",
            "A name can't be empty or contain spaces or any of : + , =",
        )


def _open(cls: type[Engine], plan: LoadPlan, log: EngineLog, report: Progress) -> Engine:
    """Open an engine on a worker thread, so that Ctrl-C can end the load and progress is shown.

    Progress is reported from the calling thread: a notebook shows other threads' output in the wrong cell.
    """
    cancelled = threading.Event()
    outcome: list[Engine | BaseException] = []
    latest: list[tuple[str, float | None]] = []

    def work() -> None:
        try:
            outcome.append(cls.open(plan, log=log, progress=lambda p, f: latest.append((p, f)), cancelled=cancelled))
        except BaseException as error:  # noqa: BLE001 - raised in the calling thread
            outcome.append(error)

    worker = threading.Thread(target=work, name="llmlab-load", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.05)
            if latest:
                # Repeated while unchanged, so that a display's elapsed time keeps updating.
                report(*latest[-1])
                del latest[:-1]
    except BaseException as error:
        cancelled.set()
        _join_through_interrupts(worker)
        if outcome and isinstance(outcome[0], Engine):
            outcome[0].close()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted from None
        raise
    result = outcome[0]
    if isinstance(result, Engine):
        return result
    if isinstance(result, LlmLabError | KeyboardInterrupt):
        raise result
    raise LoadError(
        f"{cls.name} can't load {plan.source.name}: {type(result).__name__}: {result}.",
        "See %llm logs.",
        log_tail=log.tail(),
    ) from result


def _join_through_interrupts(worker: threading.Thread) -> None:
    """Wait until the load has cleaned up, ignoring further Ctrl-C."""
    while worker.is_alive():
        try:
            worker.join()
        except KeyboardInterrupt:
            continue
