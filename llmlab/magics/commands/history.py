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
from llmlab.magics.parser import Parser, whole
from llmlab.render import units

LOG_SHOWN = 30


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
        --log lists the run log: what was asked in cells, chats and arenas, in this kernel and in earlier ones; the
        value's .frame is a DataFrame. It lies in one file on this machine, access tokens left out; --prune AGE deletes
        what is older (30d, 12h, or all), and the environment variable LLMLAB_RUN_LOG=off turns it off.
        In Python: llmlab.runs(), llmlab.lab().runlog.prune(timedelta(days=30)).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm history", ""),
        ("%llm history --to-dataset talks", "all conversations as rows to tune on"),
        (
            "%llm history --log -n 20 --search Paris",
            "the newest 20 answers, of all kernels, that have to do with Paris",
        ),
        ("%llm history --prune 30d", "delete from the run log what is older than 30 days"),
        ("%llm history --new", "forget what was said, as far as %%llm -c is concerned"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which part."""
        parser.add("--new", action="store_true", help="start a new conversation")
        parser.add("--to-dataset", metavar="VAR", help="put all conversations into a variable, as a datasets.Dataset")
        parser.add("--all", dest="everything", action="store_true", help="show all conversations")
        parser.add("--log", action="store_true", help="list the run log, which outlives the kernel")
        parser.add("-n", dest="n", type=whole, metavar="N", help="with --log: only the newest N (default: 30)")
        parser.add("--search", metavar="TEXT", help="with --log: only what holds this text")
        parser.add("--prune", metavar="AGE", help="delete from the run log what is older: 30d, 12h, or all")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The history, or word of a new start."""
        history = context.lab.history
        runlog = context.lab.runlog
        if (args.n is not None or args.search is not None) and not args.log:
            raise BadInputError("%llm history: -n and --search look into the run log.", "Add --log.")
        if args.prune is not None:
            count = runlog.prune(_age(args.prune))
            return Note(f"{units.count(count, 'answer')} deleted from the run log ({runlog.path}).", count)
        if args.log:
            found = runlog.frame(args.n or LOG_SHOWN, search=args.search)
            return RunsView(found, str(runlog.path), found=args.search or "", off=not runlog.enabled)
        if args.new:
            return Note("A new conversation: %%llm -c goes on from here.", history.start())
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
        raise BadInputError(f"%llm history: {name!r} can't be a variable's name.", "Use letters, digits and _.")
    made = context.lab.history.to_dataset()
    context.shell.user_ns[name] = made
    count = units.count(len(made), "conversation")
    return Note(f"{name}: {count}, ready for %llm tune --data {name} --name ...", made)
