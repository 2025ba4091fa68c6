"""Hooks through which lower layers use upper ones: `import llmlab` sets them, so that nothing imports upwards.

Each hook has a working default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


def _counted(items: Sequence[Any], _title: str, _unit: str, *, after_s: float) -> Iterator[Any]:  # noqa: ARG001
    return iter(items)


@contextmanager
def _progress(_title: str, given: Callable[[str, float | None], None] | None) -> Iterator[Any]:
    yield given or (lambda _phase, _fraction: None)


_has_display: ContextVar[bool] = ContextVar("llmlab_has_display", default=False)


@contextmanager
def one_display() -> Iterator[None]:
    """Code inside has a progress display, or needs none: requests show no bar of their own."""
    token = _has_display.set(True)
    try:
        yield
    finally:
        _has_display.reset(token)


@dataclass
class Hooks:
    """The hooks and their defaults.

    Attributes:
        completion_markdown: returns a completion as Markdown, for notebooks.
        inspect: opens the token inspector on a completion.
        bar: iterates over items with a progress bar (`llmlab.display.live.counted`).
        progress: a context with the progress of long work (`llmlab.display.live.progress_bar`).
        grid: opens the widget of an experiment.
        lab: the shared lab.
    """

    completion_markdown: Callable[[Any], str] = str
    inspect: Callable[..., Any] | None = None
    progress: Callable[..., AbstractContextManager[Callable[[str, float | None], None]]] = _progress
    grid: Callable[[Any], Any] | None = None
    lab: Callable[[], Any] | None = None
    bar: Callable[..., Iterator[Any]] = _counted

    def counted(self, items: Sequence[Any], title: str, unit: str, *, after_s: float) -> Iterator[Any]:
        """Iterate over items, with a progress bar if there is no other display."""
        show = _counted if _has_display.get() else self.bar
        return show(items, title, unit, after_s=after_s)


hooks = Hooks()
