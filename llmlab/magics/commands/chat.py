"""`%llm chat`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Chat(Command):
    """Open a chat in the cell."""

    name: ClassVar[str] = "chat"
    summary: ClassVar[str] = "open a chat in the cell, with any loaded model"
    details: ClassVar[str] = """
        The chat stays with the notebook: its transcript is kept when the notebook is saved.
        In Python: chat = llmlab.chat(); chat.send("...") returns the completion,
        chat.messages holds what was said; talk = %llm chat gives the same object.
        It is kept in the run log too: after a restart of the kernel, --resume opens the chat that was used last, with
        its versions, and --resume ID any conversation that %llm history --log lists.
        In Python: llmlab.chat(resume=True).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm chat", ""),
        ('%llm chat nano -s "Answer in French."', "with a model and a system prompt"),
        ("%llm chat --resume", "go on with the last chat, also of an earlier kernel"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """With whom."""
        parser.add("name", metavar="NAME", nargs="?", complete="model", help="a loaded model; default: the current one")
        parser.add("-s", "--system", as_typed=True, metavar="SYSTEM", help="a system prompt")
        parser.add(
            "--resume",
            nargs="?",
            const=True,
            metavar="ID",
            help="go on with the chat that was used last, or with a conversation of %%llm history --log",
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The widget, which shows itself as the cell's value."""
        from llmlab.widgets import Chat as ChatWidget

        given = {"system": args.system} if args.system is not None else {}
        return ChatWidget(args.name, lab=context.lab, resume=args.resume, **given)
