"""`%llm models`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Catalogue
from llmlab.magics.command import Bench, Command
from llmlab.magics.parser import Parser


class Models(Command):
    """List the models that can be loaded by name."""

    name: ClassVar[str] = "models"
    summary: ClassVar[str] = "list the models that can be loaded by name"
    examples: ClassVar[tuple[tuple[str, str], ...]] = (("%llm models", ""),)

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """None."""

    @classmethod
    def run(cls, args: argparse.Namespace, bench: Bench) -> object:  # noqa: ARG003
        """The catalogue."""
        from llmlab.hub.catalogue import entries

        return Catalogue(entries())
