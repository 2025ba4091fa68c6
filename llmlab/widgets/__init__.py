"""Widgets: chat, arena, inspector, panel, an experiment's grid. Each is an ipywidget with a static form.

llmlab.chat(); llmlab.arena(); llmlab.panel(); completion.inspect(); experiment.show()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmlab.errors import LlmLabError

if TYPE_CHECKING:
    from llmlab.widgets.arena import Arena
    from llmlab.widgets.chat import Chat
    from llmlab.widgets.grid import Grid
    from llmlab.widgets.inspector import Inspector
    from llmlab.widgets.panel import Panel

__all__ = ["Arena", "Chat", "Grid", "Inspector", "Panel"]

_PLACES = {
    "Arena": "llmlab.widgets.arena",
    "Chat": "llmlab.widgets.chat",
    "Grid": "llmlab.widgets.grid",
    "Inspector": "llmlab.widgets.inspector",
    "Panel": "llmlab.widgets.panel",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'llmlab.widgets' has no attribute {name!r}")
    import importlib

    try:
        import anywidget  # noqa: F401 - only to check that it is installed
    except ImportError:
        raise LlmLabError("Widgets need anywidget.", "Install it: pip install 'llmlab[widgets]'") from None
    return getattr(importlib.import_module(_PLACES[name]), name)
