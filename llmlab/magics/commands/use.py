"""`%llm use`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Note
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Use(Command):
    """Make a loaded model the current one."""

    name: ClassVar[str] = "use"
    summary: ClassVar[str] = "make a loaded model the current one"
    examples: ClassVar[tuple[tuple[str, str], ...]] = (("%llm use nano", "%%llm uses nano from now on"),)

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model."""
        parser.add("name", metavar="NAME", complete="model", help="a loaded model (%%llm ls)")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Switch, and report the current model."""
        model = context.lab.use(args.name)
        return Note(f"{model.name} ({model.engine}, {model.quant}) is the current model.", model)
