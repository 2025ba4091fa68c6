"""`%llm chat`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab.display.chats import ChatsView
from llmlab.magics import sampling, tooling
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser
from llmlab.tool_calls.options import TOOL_FORMATS

OVERFLOWS = ("error", "drop", "shift")
FOUND = 30


class Chat(Command):
    """Open a chat in the cell."""

    name: ClassVar[str] = "chat"
    summary: ClassVar[str] = "open a chat in the cell, with any loaded model"
    details: ClassVar[str] = """
        The transcript is saved with the notebook.
        In Python: chat = llmlab.chat(); chat.send("...") returns the completion, chat.messages has the conversation;
        chat = %llm chat returns the same object.

        The chat is also stored in the run log: after a kernel restart, --resume opens the last used chat, with its
        versions, and --resume ID any conversation that --find or %llm history --log lists. In Python:
        llmlab.chat(resume=True), llmlab.chats("words").

        The chat stays with its model; %llm load and %llm use don't change it. --overflow decides what happens when the
        conversation fills the context. With --tools each call waits for approval in the chat. --preset takes a system
        prompt that was saved in a chat (llmlab.prompts()).

        In a terminal it is a prompt: Enter sends, Alt+Enter starts a new line, Ctrl-C stops an answer, /help lists the
        commands (/system, /undo, /retry, /continue, /model, /save, /clear). Ctrl-D ends it and returns the chat.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm chat", ""),
        ('%llm chat nano -s "Answer in French."', "with a model and a system prompt"),
        ("%llm chat --think 200", "close a reasoning model's thoughts after 200 tokens"),
        ("%llm chat --tools add,mcp:files", "let the model call a function and an MCP server's tools"),
        ("%llm chat --overflow drop", "leave out the oldest turns when the context is full"),
        ("%llm chat --find Paris", "list the chats that contain a word"),
        ("%llm chat --resume", "continue the last chat, also from an earlier kernel"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and the settings."""
        parser.add("name", metavar="NAME", nargs="?", complete="model", help="a loaded model; default: the current one")
        parser.add("-s", "--system", as_typed=True, metavar="SYSTEM", help="a system prompt")
        parser.add("--preset", metavar="NAME", help="a saved system prompt")
        parser.add(
            "--overflow",
            choices=OVERFLOWS,
            metavar="POLICY",
            help="if the context is full: error (default), drop (the oldest turns), shift (with -x context_shift=on)",
        )
        parser.add(
            "--tools",
            metavar="NAME,NAME",
            complete="variable",
            help="functions that the model may call; mcp:NAME for the tools of a server in mcp.json",
        )
        parser.add("--no-approval", action="store_true", help="run tools without asking before each call")
        parser.add("--tool-choice", metavar="CHOICE", help="auto (default), none, required, or a tool's name")
        parser.add("--tool-format", choices=TOOL_FORMATS, metavar="FORMAT", help="auto (default) or generic")
        parser.add("--find", nargs="?", const="", metavar="WORDS", help="list earlier chats that contain these words")
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

        if args.find is not None:
            return ChatsView(context.lab.runlog.find(args.find, FOUND, kind="chat"), args.find)
        names = ("system", "preset", "overflow", "think", "tool_choice", "tool_format")
        given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        if args.tools is not None:
            given["tools"] = _tools(args.tools, context)
        chat = ChatWidget(args.name, lab=context.lab, resume=args.resume, approve=not args.no_approval, **given)
        from llmlab.widgets import terminal

        if not terminal.is_terminal(context.shell):
            return chat
        loop = terminal.TerminalChat(chat, context.shell)
        loop.run()
        return context.silence.mark(chat, cls.typed(), loop.ended())


def _tools(text: str, context: Context) -> list[Any]:
    """The tools named in "f,mcp:NAME"; a server stays a name, so that the chat can say where a tool is from."""
    found: list[Any] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        server = name.startswith("mcp:")
        found += [name] if server else tooling.functions(name, context.shell.user_ns, "%llm chat: --tools")
    return found
