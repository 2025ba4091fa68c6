"""`%llm logs`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import LogView
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer


class Logs(Command):
    """Show an engine's log."""

    name: ClassVar[str] = "logs"
    summary: ClassVar[str] = "show the last lines of an engine's log"
    details: ClassVar[str] = """
        The engines' output while they load and run, including their C code's. Without a name: the most recently started
        log, also of a failed load.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm logs", ""),
        ("%llm logs nano --lines 200", "the last 200 lines of a model's log"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model, and the number of lines."""
        parser.add("name", nargs="?", metavar="NAME", complete="model", help="a loaded model; default: the newest log")
        parser.add("--lines", type=integer, default=50, metavar="N", help="number of lines (default: 50)")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The log's last lines."""
        if args.lines < 1:
            raise BadInputError(f"%llm logs: --lines must be 1 or more, got {args.lines}.")
        return LogView(context.lab.logs(args.name, args.lines))
