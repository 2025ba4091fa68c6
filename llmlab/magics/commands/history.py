"""`%llm history`."""

from __future__ import annotations

import argparse
import keyword
import re
from datetime import timedelta
from typing import ClassVar

from llmlab.display import HistoryView, Note, RunsView
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.render import units

LOG_SHOWN = 30


class HistoryCommand(Command):
    """Show the conversation."""

    name: ClassVar[str] = "history"
    summary: ClassVar[str] = "show the conversation that %%llm -c continues, or start a new one"
    details: ClassVar[str] = """
        Each %%llm cell starts a new conversation; with -c it continues the last one. After --new, %%llm -c starts a new
        one. Earlier conversations are kept: --all shows them. The value's .history has the messages and the
        completions.

        --to-dataset creates a datasets.Dataset from all conversations, including those in open chats (the selected
        versions, with thumbs as ratings), for %llm tune --data. In Python: llmlab.lab().history.to_dataset().

        --log lists the run log: answers from cells, chats and arenas, of this kernel and earlier ones; the value's
        .frame is a DataFrame. It is one file on this machine, with access tokens redacted; --prune AGE deletes older
        entries (30d, 12h, or all), and the environment variable LLMLAB_RUN_LOG=off turns it off. In Python:
        llmlab.runs(), llmlab.lab().runlog.prune(timedelta(days=30)).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm history", ""),
        ("%llm history --to-dataset rows", "all conversations as training rows"),
        (
            "%llm history --log -n 20 --search Paris",
            "the newest 20 answers from all kernels that contain Paris",
        ),
        ("%llm history --prune 30d", "delete run log entries older than 30 days"),
        ("%llm history --new", "let the next %%llm -c start a new conversation"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The part to show or change."""
        parser.add("--new", action="store_true", help="start a new conversation")
        parser.add("--to-dataset", metavar="VAR", help="store all conversations in a variable, as a datasets.Dataset")
        parser.add("--all", dest="everything", action="store_true", help="show all conversations")
        parser.add("--log", action="store_true", help="list the run log, which persists across kernels")
        parser.add("-n", dest="n", type=integer, metavar="N", help="with --log: only the newest N (default: 30)")
        parser.add("--search", metavar="TEXT", help="with --log: only entries that contain this text")
        parser.add("--prune", metavar="AGE", help="delete older entries from the run log: 30d, 12h, or all")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The history, or a note about a new conversation."""
        history = context.lab.history
        runlog = context.lab.runlog
        if (args.n is not None or args.search is not None) and not args.log:
            raise BadInputError("%llm history: -n and --search apply to the run log.", "Add --log.")
        if args.prune is not None:
            count = runlog.prune(_age(args.prune))
            return Note(f"{units.count(count, 'answer')} deleted from the run log ({runlog.path}).", count)
        if args.log:
            found = runlog.frame(args.n or LOG_SHOWN, search=args.search)
            return RunsView(found, str(runlog.path), found=args.search or "", off=not runlog.enabled)
        if args.new:
            return Note("New conversation: the next %%llm -c starts it.", history.start())
        if args.to_dataset is not None:
            return _to_dataset(args.to_dataset, context)
        return HistoryView(history, everything=args.everything)


def _age(text: str) -> timedelta:
    if text == "all":
        return timedelta()
    found = re.fullmatch(r"(\d+)([dh])", text)
    if found is None:
        raise BadInputError(f"%llm history: --prune takes an age, got {text!r}.", "For example 30d, 12h, or all.")
    return timedelta(days=int(found[1])) if found[2] == "d" else timedelta(hours=int(found[1]))


def _to_dataset(name: str, context: Context) -> Note:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadInputError(f"%llm history: {name!r} is not a valid variable name.", "Use letters, digits and _.")
    made = context.lab.history.to_dataset()
    context.shell.user_ns[name] = made
    count = units.count(len(made), "conversation")
    return Note(f"{name}: {count}, ready for %llm tune --data {name} --name ...", made)
