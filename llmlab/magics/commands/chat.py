"""`%llm chat`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.magics import sampling
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Chat(Command):
    """Open a chat in the cell."""

    name: ClassVar[str] = "chat"
    summary: ClassVar[str] = "open a chat in the cell, with any loaded model"
    details: ClassVar[str] = """
        The transcript is saved with the notebook.
        In Python: chat = llmlab.chat(); chat.send("...") returns the completion, chat.messages has the conversation;
        chat = %llm chat returns the same object.

        The chat is also stored in the run log: after a kernel restart, --resume opens the last used chat, with its
        versions, and --resume ID any conversation that %llm history --log lists. In Python: llmlab.chat(resume=True).

        In a terminal it is a prompt: Enter sends, Alt+Enter starts a new line, Ctrl-C stops an answer, /help lists the
        commands (/system, /undo, /retry, /continue, /model, /save, /clear). Ctrl-D ends it and returns the chat.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm chat", ""),
        ('%llm chat nano -s "Answer in French."', "with a model and a system prompt"),
        ("%llm chat --think 200", "close a reasoning model's thoughts after 200 tokens"),
        ("%llm chat --resume", "continue the last chat, also from an earlier kernel"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and the settings."""
        parser.add("name", metavar="NAME", nargs="?", complete="model", help="a loaded model; default: the current one")
        parser.add("-s", "--system", as_typed=True, metavar="SYSTEM", help="a system prompt")
        parser.add(
            "--think",
            type=sampling.think,
            metavar="HOW",
            complete="think",
            help="on, off, low, medium, high, or the most tokens of a reasoning model's thought (default: the model's)",
        )
        parser.add(
            "--resume",
            nargs="?",
            const=True,
            metavar="ID",
            help="continue the last used chat, or a conversation listed by %%llm history --log",
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The widget, which is displayed as the cell's value; in a terminal, after a prompt loop over it."""
        from llmlab.widgets import Chat as ChatWidget

        given = {"system": args.system} if args.system is not None else {}
        chat = ChatWidget(args.name, lab=context.lab, resume=args.resume, think=args.think, **given)
        from llmlab.widgets import terminal

        if not terminal.is_terminal(context.shell):
            return chat
        loop = terminal.TerminalChat(chat, context.shell)
        loop.run()
        return context.silence.mark(chat, cls.typed(), loop.ended())
