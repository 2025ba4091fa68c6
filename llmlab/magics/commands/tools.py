"""`%llm tools`: the tool schemas that a model receives."""

from __future__ import annotations

import argparse
import inspect
from typing import Any, ClassVar

from llmlab.display.tools import ToolsView
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser
from llmlab.magics.tooling import functions
from llmlab.tool_calls.generic import family_for
from llmlab.tool_calls.tool import Tool, Toolbox


class Tools(Command):
    """Show functions as tools."""

    name: ClassVar[str] = "tools"
    summary: ClassVar[str] = "show functions as tool schemas, and the model's call format"
    details: ClassVar[str] = """
        A tool is a plain function with a type hint for each parameter; its docstring (plain, Google, NumPy or reST
        style) describes it and its parameters. Without names, this shows the functions defined in the notebook, and why
        others can't be tools. It runs nothing; %%llm --tools f,g lets a model call them. The same in Python:
        llmlab.tool_calls.Toolbox([f, g]).schemas.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm tools", "all functions defined in this notebook"),
        ("%llm tools add,search", "the JSON schemas of two functions"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The functions."""
        parser.add(
            "functions", nargs="*", metavar="F,G", complete="variable", help="functions; default: all in the notebook"
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The view."""
        names = context.shell.user_ns
        refused: list[tuple[str, str]] = []
        if args.functions:
            box = Toolbox(functions(",".join(args.functions), names, "%llm tools"))
            schemas = box.schemas
        else:
            schemas, refused = _own(names)
        current = context.lab.current
        if current is None:
            return ToolsView(schemas, refused, note="No model is loaded: %llm load nano.")
        try:
            family = family_for("auto", current.facts.chat_template, current.name)
        except UnsupportedError as error:
            return ToolsView(schemas, refused, note=str(error))
        return ToolsView(schemas, refused, (current.name, family.name, family.example))


def _own(names: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The user's functions: the schemas of those that can be tools, and why the others can't."""
    schemas, refused = [], []
    for name, value in list(names.items()):
        if name.startswith("_") or not inspect.isfunction(value) or value.__module__ != names.get("__name__"):
            continue
        try:
            schemas.append(Tool.of(value).schema)
        except BadInputError as error:
            refused.append((name, error.message))
    return schemas, refused
