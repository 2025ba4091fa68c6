"""Lists and comparisons of adapters: text and HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.render.table import Table, TableView

if TYPE_CHECKING:
    from llmlab.model import Model


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
