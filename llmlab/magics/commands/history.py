"""`%llm history`."""

from __future__ import annotations

import argparse
import keyword
from typing import ClassVar

from llmlab.display import HistoryView, Note, units
from llmlab.errors import BadInputError
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
        --to-dataset makes a datasets.Dataset of all conversations, those of open chats too (the versions shown there,
        with thumbs as ratings): what %llm tune --data learns from. In Python: llmlab.lab().history.to_dataset().
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm history", ""),
        ("%llm history --to-dataset talks", "all conversations as rows to tune on"),
        ("%llm history --new", "forget what was said, as far as %%llm -c is concerned"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which part."""
        parser.add("--new", action="store_true", help="start a new conversation")
        parser.add("--to-dataset", metavar="VAR", help="put all conversations into a variable, as a datasets.Dataset")
        parser.add("--all", dest="everything", action="store_true", help="show all conversations")

    @classmethod
    def run(cls, args: argparse.Namespace, bench: Bench) -> object:
        """The history, or word of a new start."""
        history = bench.lab.history
        if args.new:
            return Note("A new conversation: %%llm -c goes on from here.", history.start())
        if args.to_dataset is not None:
            return _to_dataset(args.to_dataset, bench)
        return HistoryView(history, everything=args.everything)


def _to_dataset(name: str, bench: Bench) -> Note:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadInputError(f"%llm history: {name!r} can't be a variable's name.", "Use letters, digits and _.")
    made = bench.lab.history.to_dataset()
    bench.shell.user_ns[name] = made
    count = units.count(len(made), "conversation")
    return Note(f"{name}: {count}, ready for %llm tune --data {name} --name ...", made)
