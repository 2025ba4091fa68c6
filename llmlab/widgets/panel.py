"""The panel: what is loaded where, live, with buttons to load, switch and unload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.display import ModelList
from llmlab.errors import LlmLabError
from llmlab.render import units
from llmlab.widgets import assets
from llmlab.widgets.base import BenchWidget, problem_html

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab


class Panel(BenchWidget):
    """The bench at a glance. Made by `llmlab.panel()` or `%llm panel`.

    Traits: `rows` (one dict a loaded model: memory in bytes, requests in flight), `device` (memory there is).
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {"use": "_do_use", "unload": "_do_unload"}
    _esm = assets.esm("panel")
    _css = assets.css("panel")

    rows = t.List(t.Dict()).tag(sync=True)
    device = t.Dict().tag(sync=True)

    def __init__(self, *, lab: Lab | None = None, **traits: Any) -> None:
        super().__init__(lab, **traits)

    def refresh(self) -> None:
        """Read the bench anew; a page that shows the panel asks for it each second."""
        self._look()

    def _look(self) -> None:
        super()._look()
        from llmlab.machine import memory

        device = memory.device()
        current = self.lab.current
        rows = [_row(model, current=model is current) for model in self.lab.models.values() if model.loaded]
        # Free memory wavers by a little all the time: what can't be seen in the bar isn't sent.
        step = max(device.total // 200, 1)
        says = f"{units.size(device.free)} free of {units.size(device.total)}"
        seen = {"name": device.name, "total": device.total, "free": device.free // step * step, "says": says}
        with self._guard:
            if rows != self.rows:
                self.rows = rows
                self._changed()
            if seen["free"] != self.device.get("free"):
                self.device = seen

    def _do_use(self, name: str = "") -> None:
        self.lab.use(name)
        self._look()

    def _do_unload(self, name: str = "") -> None:
        self.lab.get(name)
        self._work.start(f"unloading {name}", lambda _progress: self.lab.unload(name))

    def _refresh_static(self) -> None:
        # A notebook that ends with an unload should still show what had been loaded.
        if self.rows:
            super()._refresh_static()

    # -- the form without a front end -----------------------------------------------------------------

    def _list(self) -> ModelList:
        return ModelList(self.lab.models, self.lab.current)

    def markdown(self) -> str:
        """The loaded models as a fenced table."""
        return f"```text\n{self._list().text()}\n```"

    def text(self) -> str:
        """The loaded models as an aligned table."""
        return self._list().text()

    def html(self) -> str:
        """The loaded models as a table."""
        return self._list()._repr_html_() + problem_html(self.problem)

    def __repr__(self) -> str:
        return f"<Panel of {len(self.lab.models)} loaded models>"


def _row(model: Model, *, current: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": model.name,
        "engine": model.engine,
        "quant": model.quant,
        "context": model.facts.context_length,
        "parameters": units.parameters(model.facts.parameters),
        "adapters": [str(name) for name in model.adapters],
        "current": current,
        "in_flight": model.in_flight,
        "reason": model.reason,
    }
    try:
        memory = model.memory()
    except LlmLabError:  # it went while we looked
        return row | {"weights": 0, "kv": 0, "on": "", "says": "unloaded"}
    says = f"weights {units.size(memory.weights)} · KV cache {units.size(memory.kv_cache)}"
    return row | {"weights": memory.weights, "kv": memory.kv_cache, "on": memory.device, "says": says}
