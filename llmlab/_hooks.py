"""What upper rooms do for data below them: `import llmlab` sets these, so that no data imports the display.

Each hook has a plain default, so the data works without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


def _counted(items: Sequence[Any], _title: str, _unit: str, *, after_s: float) -> Iterator[Any]:  # noqa: ARG001
    return iter(items)


@dataclass
class Hooks:
    """The hooks.

    Attributes:
        completion_markdown: a completion as Markdown, for notebooks.
        inspect: opens the token inspector on a completion.
        counted: the items of a long loop one by one, with a progress bar (`llmlab.display.live.counted`).
    """

    completion_markdown: Callable[[Any], str] = str
    inspect: Callable[..., Any] | None = None
    counted: Callable[..., Iterator[Any]] = _counted


hooks = Hooks()
