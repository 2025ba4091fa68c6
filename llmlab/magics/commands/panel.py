"""`%llm panel`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Panel(Command):
    """Open the panel of loaded models."""

    name: ClassVar[str] = "panel"
    summary: ClassVar[str] = "watch and manage the loaded models: memory, adapters, requests in flight"
    details: ClassVar[str] = """
        A live table of the loaded models, with buttons to load, switch and unload. In Python: llmlab.panel().
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (("%llm panel", ""),)

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """None."""

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:  # noqa: ARG003 - the command has no options
        """The widget, which is displayed as the cell's value."""
        from llmlab.widgets import Panel as PanelWidget

        return PanelWidget(lab=context.lab)
