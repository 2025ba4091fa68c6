"""The view of an adapter comparison: a table with one column per adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmlab.render.table import Table, TableView

if TYPE_CHECKING:
    from llmlab.adapters.comparison import AdapterComparison

_LONGEST = 400


class ComparisonView(TableView):
    """Answers side by side, one column per adapter, with the metric's means below."""

    def __init__(self, found: AdapterComparison) -> None:
        rows: list[tuple[Any, ...]] = []
        for i, prompt in enumerate(found.prompts):
            cells = []
            for j, done in enumerate(found.completions[i]):
                text = _cut(done.text.strip())
                cells.append(f"{text}\n[{found.scores[i][j]:.4g}]" if found.scores is not None else text)
            rows.append((_cut(prompt), *cells))
        if found.scores is not None:
            rows.append((f"mean {found.metric} [95 % interval]", *(one.text for one in found.estimates.values())))
        super().__init__(Table(("prompt", *found.adapters), rows, note="\n".join(found.conclusions)))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
