"""`%llm help`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.errors import UnknownNameError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Help(Command):
    """Show help."""

    name: ClassVar[str] = "help"
    summary: ClassVar[str] = "list the commands, or show one command's page with examples"
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm help load", ""),
        ("%llm help cell", "the options of %%llm"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The page to show."""
        parser.add("command", nargs="?", metavar="COMMAND", complete="command", help="a command, or cell for %%%%llm")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:  # noqa: ARG003
        """The page."""
        # Imported here: helptext reads the table of commands, including this one.
        from llmlab.magics import helptext, table

        if args.command is None:
            return helptext.HelpView(helptext.overview())
        if args.command in ("cell", "%%llm"):
            return helptext.HelpView(helptext.page_of(table.cell()))
        try:
            return helptext.HelpView(helptext.page_of(table.find(args.command)))
        except UnknownNameError as error:
            raise UnknownNameError(
                f"%llm help: {error.message.removeprefix('%llm: ')}",
                error.hint.replace("See %llm help.", "Or cell, for %%llm."),
                known=error.known,
                closest=error.closest,
            ) from None
