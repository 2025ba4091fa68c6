"""`%llm history`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import HistoryView, Note
from llmlab.magics.command import Bench, Command
from llmlab.magics.parser import Parser


class HistoryCommand(Command):
    """Show the conversation."""

    name: ClassVar[str] = "history"
    summary: ClassVar[str] = "show the conversation that %%llm -c goes on with, or start a new one"
    details: ClassVar[str] = """
        Each %%llm cell starts a conversation of its own; with -c it goes on with the last one. After --new,
        %%llm -c begins afresh. The earlier conversations are kept: --all shows them.
        The value's .history holds the messages and the completions.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm history", ""),
        ("%llm history --new", "forget what was said, as far as %%llm -c is concerned"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which part."""
        parser.add("--new", action="store_true", help="start a new conversation")
        parser.add("--all", dest="everything", action="store_true", help="show all conversations")

    @classmethod
    def run(cls, args: argparse.Namespace, bench: Bench) -> object:
        """The history, or word of a new start."""
        history = bench.lab.history
        if args.new:
            return Note("A new conversation: %%llm -c goes on from here.", history.start())
        return HistoryView(history, everything=args.everything)
