"""The Lab's state as plain data for a front end: models, memory, available models; and loads in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmlab.engines import vision
from llmlab.errors import LlmLabError

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab

# Finding a spec's forms reads folders; for a picker, once per spec is enough.
_PICKER_LIMIT = 40


class Forms:
    """The quants that a loaded model can be switched to, computed once per spec."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], list[dict[str, str]]] = {}

    def of(self, model: Model) -> list[dict[str, str]]:
        """Quants for the model's engine: name, and the required action (ready, convert, download)."""
        key = (model.source.spec, model.engine)
        if key not in self._known:
            self._known[key] = _forms(*key)
        known = self._known[key]
        if any(form["quant"] == model.quant for form in known):
            return known
        return [{"quant": model.quant, "action": "ready"}, *known]


def _forms(spec: str, engine: str) -> list[dict[str, str]]:
    from llmlab.hub.spec import parse
    from llmlab.loading.forms import find

    try:
        found = find(parse(spec))
    except (LlmLabError, OSError):
        return []
    forms = {c.quant: {"quant": c.quant, "action": c.action} for c in reversed(found) if c.engine == engine}
    return list(reversed(forms.values()))[:_PICKER_LIMIT]


def model_row(model: Model, *, current: bool, forms: Forms) -> dict[str, Any]:
    """A loaded model's data for a picker."""
    return {
        "name": model.name,
        "engine": model.engine,
        "quant": model.quant,
        "context": model.facts.context_length,
        "adapters": [str(name) for name in model.adapters],
        "quants": forms.of(model),
        "current": current,
        "chat": model.facts.chat_template is not None,
        "no_images": str(vision.refusal(model.name, model.engine, model.facts) or ""),
    }


def snapshot(lab: Lab, forms: Forms, work: Work) -> dict[str, Any]:
    """The loaded models, the names that can be loaded, and the running load."""
    from llmlab.hub.catalogue import entries

    current = lab.current
    rows = [model_row(m, current=m is current, forms=forms) for m in lab.models.values() if m.loaded]
    try:
        offers = [entry.name for entry in entries()][:_PICKER_LIMIT]
    except (LlmLabError, OSError):
        offers = []
    return {"models": rows, "offers": offers, "work": work.state}


class Work:
    """One load or unload at a time, on a separate thread, with its progress as data.

    Args:
        changed: called (on the thread) when the state changes.
        failed: called with the error if it fails.
    """

    def __init__(self, changed: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        self._changed = changed
        self._failed = failed
        self._thread: threading.Thread | None = None
        self.state: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a task is running."""
        return self.state is not None

    def start(self, what: str, task: Callable[[Callable[[str, float | None], None]], Any]) -> None:
        """Run `task(progress)`; `what` is its name ("loading nano").

        Raises:
            LlmLabError: another task is running.
        """
        if self.state is not None:
            raise LlmLabError(f"Busy: {self.state['what']}.", "Wait until it is done.")
        self.state = {"what": what, "phase": "", "fraction": None}

        def progress(phase: str, fraction: float | None) -> None:
            self.state = {"what": what, "phase": phase, "fraction": fraction}
            self._changed()

        def run() -> None:
            try:
                task(progress)
            except BaseException as error:  # noqa: BLE001 - shown in the widget
                self._failed(error)
            finally:
                self.state = None
                self._changed()

        self._changed()
        self._thread = threading.Thread(target=run, name="llmlab-widget-work", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it's done."""
        if self._thread is not None:
            self._thread.join(timeout)
