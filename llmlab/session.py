"""The Lab: the loaded models, the current one, and the conversations. An object; the magics hold one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmlab import config
from llmlab.engines.base import Engine, EngineLog, LoadPlan, Progress
from llmlab.engines.registry import check_name, engine_class
from llmlab.errors import BadInputError, Interrupted, LlmLabError, LoadError, UnknownNameError, unknown
from llmlab.inference.conversation import History
from llmlab.loading.plan import Planned, make_plan
from llmlab.loading.switch import carry_over, plan_switch
from llmlab.model import Model
from llmlab.runlog import RunLog

LOGS_KEPT = 20


class Lab:
    """An experiment bench: models by name, one of them current.

    Loading never harms what stands: a name that is taken is replaced only after the new model is ready,
    and a load that fails or is interrupted leaves everything as it was.
    """

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._current: str | None = None
        self._last_log: EngineLog | None = None
        # One load or unload at a time: fit estimates must see what the one before left.
        self._loading = threading.Lock()
        self.history = History()
        self.runlog = RunLog()

    # -- loading -------------------------------------------------------------------------------

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
        max_concurrency: int | None = None,
        force: bool = False,
        extra: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        draft: str | None = None,
        from_: str | None = None,
    ) -> Model:
        """Load a model and make it the current one.

        Args:
            model: a catalogue name, a path to a GGUF file or a Hugging Face folder, or `hf:org/repo`.
            engine: vllm, llamacpp, or auto, which chooses and says why (`Model.reason`).
            quant: quant tag; None takes the model's default for the engine.
            name: what to call it; None takes the model's own name.
            ctx: context length in tokens; None takes the trained one, or what fits.
            gpu_layers: layers to put on the GPU (llamacpp); None lets the engine choose.
            tp: GPUs to split the model over (vllm).
            max_concurrency: most sequences decoded at once; further ones wait.
            force: load even when the estimate says that it doesn't fit.
            extra: engine options by name, as `-x KEY=VALUE` gives them.
            progress: called with (phase, fraction or None) on this thread while it loads.
            draft: guess tokens ahead, which the model then checks (speculative decoding): a smaller model with the
                same tokenizer, or "ngram", which looks the last tokens up in the text so far.
            from_: whose quantization of a hub's model to take when the catalogue doesn't list it: an author, or a
                repository `org/name[@revision]`.

        Returns:
            The model, ready to be asked.

        Raises:
            UnknownNameError: model, engine, quant or option aren't known.
            UnsupportedError: the engine can't do what was asked.
            DoesNotFitError: not enough memory.
            LoadError: the files are broken, or the engine failed; the log's tail is in it.
            Interrupted: Ctrl-C; nothing half-loaded stays.
        """
        if name is not None:
            _check_name(name)
        report = progress or (lambda _phase, _fraction: None)
        with self._loading:
            planned = make_plan(
                model,
                engine=engine,
                quant=quant,
                ctx=ctx,
                gpu_layers=gpu_layers,
                tp=tp,
                max_concurrency=max_concurrency,
                force=force,
                extra=extra or {},
                progress=report,
                draft=draft,
                from_=from_,
            )
            final_name = name or planned.plan.source.name
            loaded = self._start(final_name, planned, report)
            replaced = self._models.pop(final_name, None)
            self._models[final_name] = loaded
            self._current = final_name
            if replaced is not None:
                if replaced.source.name == loaded.source.name:
                    lost = carry_over(replaced.adapter_specs(), loaded)
                    loaded.reason = "; ".join(note for note in (loaded.reason, lost) if note)
                replaced.unload()
            return loaded

    def switch_quant(self, quant: str, *, name: str | None = None, progress: Progress | None = None) -> Model:
        """Put another quant of a loaded model in its place; the `Model` object stays the same.

        The conversation, the sampling defaults, the adapters, the context length and the engine options that the new
        engine knows carry on. Where the tag is the other engine's, the engine changes too. Requests under way end as
        interrupted. `Model.reason` says what was done.

        Args:
            quant: the tag. A canonical name spelled exactly is that tag (`bf16` is vllm's, `BF16` llamacpp's); any
                other spelling is read as the running engine's first.
            name: the model; None takes the current one.
            progress: as in `load`.

        Returns:
            The same model, with the new quant; at once when it has that quant already.

        Raises:
            UnknownNameError: no such model or tag.
            UnsupportedError: the model, the engine or this machine hasn't that quant; nothing was touched.
            DoesNotFitError: it would not fit even alone; nothing was touched.
            LoadError, Interrupted: as in `load`; the old quant stands, loaded again where it had been released first.
        """
        report = progress or (lambda _phase, _fraction: None)
        with self._loading:
            model = self.get(name)
            started = time.perf_counter()
            switch = plan_switch(model, quant, report)
            if switch is None:
                return model
            before, engine = model.plan, check_name(model.engine)
            adapters = model.adapter_specs()
            if switch.first_release:
                model.unload()
            try:
                new = self._start(model.name, switch.planned, report)
            except BaseException:
                if switch.first_release:
                    back = self._start(model.name, replace(switch.planned, engine=engine, plan=before), report)
                    model.become(back)
                    carry_over(adapters, model)
                raise
            was = model.quant
            model.become(new)
            notes = [f"{was} → {model.quant}", *switch.notes, carry_over(adapters, model)]
            model.load_s = time.perf_counter() - started
            model.reason = "; ".join(note for note in notes if note)
            return model

    def _start(self, name: str, planned: Planned, report: Progress) -> Model:
        """Open an engine for a plan and wrap it; the caller holds `_loading` and gives it its place."""
        cls = engine_class(planned.engine)
        log = self._new_log(name, planned.engine)
        started = time.perf_counter()
        try:
            opened = _open(cls, planned.plan, log, report)
        except BaseException:
            log.close()
            raise
        # What the engine settled (a context it had to shorten, say) is what stands.
        plan = replace(planned.plan, context_length=opened.facts.context_length)
        took = time.perf_counter() - started
        return Model(name, opened, plan, estimate=planned.estimate, reason=planned.reason, load_s=took, log=log)

    # -- what is there -------------------------------------------------------------------------

    @property
    def models(self) -> dict[str, Model]:
        """The loaded models by name (a copy)."""
        return dict(self._models)

    @property
    def current(self) -> Model | None:
        """The model that is asked when none is named."""
        return self._models.get(self._current) if self._current is not None else None

    def get(self, name: str | None = None) -> Model:
        """A loaded model by name; the current one when no name is given.

        Raises:
            UnknownNameError: nothing is loaded, or not under that name.
        """
        if name is None:
            if self.current is None:
                raise UnknownNameError("No model is loaded.", "Load one: %llm load nano")
            return self.current
        if name not in self._models:
            hint = f"Load it: %llm load {name}" if not self._models else "See %llm ls."
            raise unknown("loaded model", name, self._models, hint)
        return self._models[name]

    def use(self, name: str) -> Model:
        """Make a loaded model the current one."""
        model = self.get(name)
        self._current = name
        return model

    def unload(self, name: str | None = None, *, everything: bool = False) -> list[str]:
        """Unload a model (the current one when none is named), or all; returns the names that went.

        The next current model is the one that was loaded last.
        """
        with self._loading:
            if everything and name is not None:
                raise BadInputError("Name a model or unload all, not both.", "%llm unload NAME, or %llm unload --all")
            names = list(self._models) if everything else [self.get(name).name]
            for one in names:
                self._models.pop(one).unload()
            if self._current not in self._models:
                self._current = next(reversed(self._models), None)
            return names

    def logs(self, name: str | None = None, lines: int = 50) -> str:
        """The last lines of an engine's log: a model's, or the one that was written last (a failed load's too)."""
        log = self.get(name).log if name is not None else self._last_log
        if log is None:
            return "No engine has been started yet."
        return log.tail(lines)

    def close(self) -> None:
        """Unload everything, and write what the run log still holds."""
        self.unload(everything=True)
        self.runlog.close()

    def __repr__(self) -> str:
        return f"<Lab: {', '.join(repr(m) for m in self._models.values()) or 'no model loaded'}>"

    def _new_log(self, name: str, engine: str) -> EngineLog:
        folder = config.log_dir()
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        for old in sorted(folder.glob("*.log"), key=lambda path: path.name)[:-LOGS_KEPT]:
            old.unlink(missing_ok=True)
        self._last_log = EngineLog(folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{engine}-{safe}.log")
        return self._last_log


def _check_name(name: str) -> None:
    if not name or any(c.isspace() or c in ":+,=" for c in name):
        raise BadInputError(
            f"A model can't be called {name!r}.",
            "A name has no spaces and none of the signs : + , = (they mean something).",
        )


def _open(cls: type[Engine], plan: LoadPlan, log: EngineLog, report: Progress) -> Engine:
    """Open an engine on a worker thread, so that Ctrl-C can end the load and progress shows meanwhile.

    Progress is reported from the calling thread: a notebook sends what other threads display to the wrong cell.
    """
    cancelled = threading.Event()
    outcome: list[Engine | BaseException] = []
    latest: list[tuple[str, float | None]] = []

    def work() -> None:
        try:
            outcome.append(cls.open(plan, log=log, progress=lambda p, f: latest.append((p, f)), cancelled=cancelled))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            outcome.append(error)

    worker = threading.Thread(target=work, name="llmlab-load", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.05)
            if latest:
                # Said again while nothing is new, so that a display's clock goes on.
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
        f"{plan.source.name} could not be loaded in {cls.name}: {type(result).__name__}: {result}.",
        "See %llm logs.",
        log_tail=log.tail(),
    ) from result


def _join_through_interrupts(worker: threading.Thread) -> None:
    """Wait until the load has cleaned up, however often Ctrl-C is pressed meanwhile."""
    while worker.is_alive():
        try:
            worker.join()
        except KeyboardInterrupt:
            continue
