"""Hooks through which lower layers use upper ones: `import llmlab` sets them, so that nothing imports upwards.

Each hook has a working default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any


def _counted(items: Sequence[Any], _title: str, _unit: str, *, after_s: float) -> Iterator[Any]:  # noqa: ARG001
    return iter(items)


@contextmanager
def _progress(_title: str, given: Callable[[str, float | None], None] | None) -> Iterator[Any]:
    yield given or (lambda _phase, _fraction: None)


@dataclass
class Hooks:
    """The hooks and their defaults.

    Attributes:
        completion_markdown: returns a completion as Markdown, for notebooks.
        inspect: opens the token inspector on a completion.
        counted: iterates over items with a progress bar (`llmlab.display.live.counted`).
        progress: a context with the progress of long work (`llmlab.display.live.progress_bar`).
        grid: opens the widget of an experiment.
    """

    completion_markdown: Callable[[Any], str] = str
    inspect: Callable[..., Any] | None = None
    counted: Callable[..., Iterator[Any]] = _counted
    progress: Callable[..., AbstractContextManager[Callable[[str, float | None], None]]] = _progress
    grid: Callable[[Any], Any] | None = None


hooks = Hooks()
