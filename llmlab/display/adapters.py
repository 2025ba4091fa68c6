"""Adapters in lists and side by side: text and HTML."""

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
        state = f"Requests that name no adapter use {used}." if used else "Requests that name no adapter use none."
        super().__init__(
            Table(
                ("", "adapter", "rank>", "modules", "made for", "files"),
                rows,
                note=f"{model.name} ({model.engine}, {model.quant}). {state}",
                empty=f"{model.name} ({model.engine}) has no adapters. Add one: %llm lora add NAME SOURCE",
            )
        )
