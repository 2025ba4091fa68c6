"""`%llm chat`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.magics.command import Bench, Command
from llmlab.magics.parser import Parser


class Chat(Command):
    """Open a chat in the cell."""

    name: ClassVar[str] = "chat"
    summary: ClassVar[str] = "open a chat in the cell, with any loaded model"
    details: ClassVar[str] = """
        The chat stays with the notebook: its transcript is kept when the notebook is saved.
        In Python: chat = llmlab.chat(); chat.send("...") returns the completion,
        chat.messages holds what was said; talk = %llm chat gives the same object.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm chat", ""),
        ('%llm chat nano -s "Answer in French."', "with a model and a system prompt"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """With whom."""
        parser.add("name", metavar="NAME", nargs="?", complete="model", help="a loaded model; default: the current one")
        parser.add("-s", "--system", metavar="SYSTEM", default="", help="a system prompt")

    @classmethod
    def run(cls, args: argparse.Namespace, bench: Bench) -> object:
        """The widget, which shows itself as the cell's value."""
        from llmlab.widgets import Chat as ChatWidget

        return ChatWidget(args.name, lab=bench.lab, system=args.system)
