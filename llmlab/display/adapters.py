"""Lists and comparisons of adapters: text and HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmlab.render.table import Table, TableView

if TYPE_CHECKING:
    from llmlab.adapters.comparison import Comparison
    from llmlab.model import Model

_LONGEST = 400


class AdapterList(TableView):
    """The adapters of a model, the one in use marked with *.

    `value` is the tuple of their names.
    """

    def __init__(self, model: Model) -> None:
        self.value = model.adapters
        used = model.adapter or ""
        parts = {part.partition(":")[0] for part in used.split("+")}
        rows = [
            (
                "*" if entry.name in parts else "",
                entry.name,
                str(entry.files.rank),
                " ".join(entry.files.targets),
                entry.files.base,
                str(entry.files.path),
            )
            for entry in model.adapter_entries()
        ]
        state = f"Default adapter: {used}." if used else "Default adapter: none."
        super().__init__(
            Table(
                ("", "adapter", "rank>", "modules", "base model", "files"),
                rows,
                note=f"{model.name} ({model.engine}, {model.quant}). {state}",
                empty=f"{model.name} ({model.engine}) has no adapters. Add one: %llm lora add NAME SOURCE",
            )
        )


class ComparisonView(TableView):
    """Answers side by side, one column per adapter; the metric's means below."""

    def __init__(self, found: Comparison) -> None:
        rows: list[tuple[Any, ...]] = []
        for i, prompt in enumerate(found.prompts):
            cells = []
            for j, done in enumerate(found.completions[i]):
                text = _cut(done.text.strip())
                cells.append(f"{text}\n[{found.scores[i][j]:.4g}]" if found.scores is not None else text)
            rows.append((_cut(prompt), *cells))
        if found.scores is not None:
            rows.append((f"mean {found.metric}", *(f"{mean:.4g}" for mean in found.means.values())))
        super().__init__(Table(("prompt", *found.adapters), rows))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
