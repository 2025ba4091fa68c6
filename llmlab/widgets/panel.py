"""The panel: a live table of the loaded models, with buttons to load, switch and unload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.display import ModelList
from llmlab.errors import LlmLabError
from llmlab.options import known_keywords
from llmlab.render import units
from llmlab.widgets import assets
from llmlab.widgets.base import BenchWidget

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab


class Panel(BenchWidget):
    """The loaded models, live. Created by `llmlab.panel()` or `%llm panel`.

    Traits: `rows` (one dict per loaded model: memory in bytes, requests in flight), `device` (free and total memory).

    Example:
        >>> panel = llmlab.panel()
        >>> [row["name"] for row in panel.rows]
        ['nano']
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {"use": "_do_use", "unload": "_do_unload"}
    _esm = assets.esm("panel")
    _css = assets.css("panel")

    rows = t.List(t.Dict()).tag(sync=True)
    device = t.Dict().tag(sync=True)

    @known_keywords
    def __init__(self, *, lab: Lab | None = None) -> None:
        """Create a panel.

        Args:
            lab: the Lab; None for the shared one.
        """
        self._served = False
        super().__init__(lab)

    def refresh(self) -> None:
        """Update the rows; a page that shows the panel requests this every second.

        Example:
            >>> panel = llmlab.panel()
            >>> panel.refresh()
        """
        self._update_lab()

    def _update_lab(self) -> None:
        super()._update_lab()
        from llmlab.machine import memory

        device = memory.device()
        current = self.lab.current
        rows = [_row(model, current=model is current) for model in self.lab.models.values() if model.loaded]
        # Free memory fluctuates: changes too small to be visible in the bar aren't sent.
        step = max(device.total // 200, 1)
        summary = f"{units.size(device.free)} free of {units.size(device.total)}"
        server = self.lab.server
        if server is not None:
            summary += f" · served at {server.url}"
        seen = {"name": device.name, "total": device.total, "free": device.free // step * step, "summary": summary}
        with self._guard:
            if rows != self.rows:
                self.rows = rows
                self._changed()
            if seen["free"] != self.device.get("free") or (server is not None) != self._served:
                self._served = server is not None
                self.device = seen

    def _do_use(self, name: str = "") -> None:
        self.lab.use(name)
        self._update_lab()

    def _do_unload(self, name: str = "") -> None:
        self.lab.get(name)
        self._work.start(f"unloading {name}", lambda _progress: self.lab.unload(name))

    def _refresh_static(self) -> None:
        # A notebook that ends with an unload should still show the models that were loaded.
        if self.rows:
            super()._refresh_static()

    # -- static form ----------------------------------------------------------------------------------

    def _list(self) -> ModelList:
        server = self.lab.server
        return ModelList(self.lab.models, self.lab.current, served=server.url if server is not None else "")

    def markdown(self) -> str:
        """The loaded models as a fenced table."""
        return f"```text\n{self._list().text()}\n```"

    def text(self) -> str:
        """The loaded models as an aligned table."""
        return self._list().text()

    def html(self) -> str:
        """The loaded models as a table."""
        return self._list()._repr_html_()

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
    except LlmLabError:  # it was unloaded meanwhile
        return row | {"weights": 0, "kv": 0, "on": "", "summary": "unloaded"}
    summary = f"weights {units.size(memory.weights)} · KV cache {units.size(memory.kv_cache)}"
    return row | {"weights": memory.weights, "kv": memory.kv_cache, "on": memory.device, "summary": summary}
