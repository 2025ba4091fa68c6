"""Hooks through which lower layers use upper ones: `import llmlab` sets them, so that nothing imports upwards.

Each hook has a working default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


def _counted(items: Sequence[Any], _title: str, _unit: str, *, after_s: float) -> Iterator[Any]:  # noqa: ARG001
    return iter(items)


@dataclass
class Hooks:
    """The hooks and their defaults.

    Attributes:
        completion_markdown: returns a completion as Markdown, for notebooks.
        inspect: opens the token inspector on a completion.
        counted: iterates over items with a progress bar (`llmlab.display.live.counted`).
    """

    completion_markdown: Callable[[Any], str] = str
    inspect: Callable[..., Any] | None = None
    counted: Callable[..., Iterator[Any]] = _counted


hooks = Hooks()
