"""The options `--tools`, `--tool-choice` etc. of `%%llm`, and the display of a generation with tools."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from llmlab.display.live import UPDATE_EVERY_S
from llmlab.display.tools import ToolAnswer
from llmlab.errors import BadInputError, UnknownNameError, unknown
from llmlab.magics.command import Context
from llmlab.magics.expansion import look_up
from llmlab.magics.parser import Parser, integer, number
from llmlab.tool_calls.mcp import mcp_tools
from llmlab.tool_calls.options import TOOL_FORMATS
from llmlab.tool_calls.stream import ToolStream
from llmlab.types import Completion


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add(
        "--tools",
        metavar="F,G",
        complete="variable",
        help="functions that the model may call; mcp:NAME: those of an MCP server",
    )
    parser.add("--tool-choice", metavar="X", help="auto, none, required, or the one tool to call (default: auto)")
    parser.add(
        "--tool-format",
        choices=TOOL_FORMATS,
        help="generic: tools in the system prompt, for any model (default: the model's own format, if it has one)",
    )
    parser.add("--strict", action="store_true", help="generate calls under their schema, so that each is valid")
    parser.add("--approve", action="store_true", help="ask before each call (needs interactive input)")
    parser.add("--max-steps", type=integer, metavar="N", help="maximum rounds of calls (default: 8)")
    parser.add("--tool-timeout", type=number, metavar="S", help="maximum seconds per call (default: 60)")


def options(args: argparse.Namespace, names: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `generate` for these options.

    Args:
        args: the parsed line.
        names: the user's variables.

    Raises:
        BadInputError: a function doesn't exist, or tool options are given without tools.
    """
    found: dict[str, Any] = {}
    if args.tools is not None:
        found["tools"] = functions(args.tools, names, "%%llm: --tools")
    for name in ("tool_choice", "max_steps", "tool_timeout", "tool_format"):
        if getattr(args, name) is not None:
            found[name] = getattr(args, name)
    for name in ("strict", "approve"):
        if getattr(args, name):
            found[name] = True
    if found and "tools" not in found:
        option = "--" + next(iter(found)).replace("_", "-")
        raise BadInputError(f"%%llm: {option} needs tools, but there are none.", "Name functions: --tools f,g")
    return found


def functions(text: str, names: Mapping[str, Any], typed: str) -> list[Any]:
    """The user's functions named in "f,g"; a variable with a list of functions stands for all of them.

    `mcp:NAME` stands for the tools of an MCP server.

    Raises:
        UnknownNameError: there is no such variable.
    """
    found: list[Any] = []
    for name in (part.strip() for part in text.split(",")):
        if not name:
            continue
        if name.startswith("mcp:"):
            found += mcp_tools(name.removeprefix("mcp:"))
            continue
        head = name.split(".", 1)[0].split("[", 1)[0]
        if head not in names:
            own = [known for known, value in names.items() if callable(value) and not known.startswith("_")]
            error = unknown("function", name, own)
            guess = f"Did you mean {error.closest!r}? " if error.closest else ""
            raise UnknownNameError(
                f"{typed}: there is no function {name!r}.",
                f"{guess}Define it in a cell before this one.",
                known=error.known,
                closest=error.closest,
            )
        value = look_up(name, names)
        found += value if isinstance(value, list | tuple) else [value]
    if not found:
        raise BadInputError(f"{typed} doesn't name a function.", "For example --tools add,search")
    return found


def ask(stream: ToolStream, args: argparse.Namespace, context: Context) -> Completion:
    """Display a generation with tools while it runs; an interrupt, in the engine or a tool, keeps the partial result.

    The tools run in the cell's thread.
    """
    show = ToolAnswer(context.shell, fmt=args.format, stream=not args.no_stream)
    stream.listen(lambda: show.update("", stream.steps))
    try:
        stream.start()
        while not stream.wait(UPDATE_EVERY_S):
            show.update(stream.text, stream.steps, stream.thought)
        completion = stream.result()
    except KeyboardInterrupt:
        stream.cancel()
        completion = stream.partial()
    show.finish(completion)
    return completion
