"""`%llm guided`: what a constraint did to an answer."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import GuidanceView
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.expand import look_up
from llmlab.magics.parser import Parser, whole
from llmlab.types import Completion

SHOWN = 24


class Guided(Command):
    """Explain a guided completion."""

    name: ClassVar[str] = "guided"
    summary: ClassVar[str] = "what a constraint (--schema, --type, ...) did to the last answer"
    details: ClassVar[str] = """
        For each token: how much of the model's probability the constraint removed, and what the model would have said.
        A high mean says that the constraint fights the model: the prompt should ask for the form that it enforces.
        The same in Python: completion.guidance.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm guided --explain", "the last answer, the tokens that lost most"),
        ("%llm guided answer --explain --rows 200", "a completion kept with -o answer"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which completion, and how much of it."""
        parser.add(
            "completion", nargs="?", metavar="VAR", complete="variable", help="a Completion; default: the last answer"
        )
        parser.add("--explain", action="store_true", help="token by token (without it: the tokens that lost most)")
        parser.add("--rows", type=whole, metavar="N", help="show at most N tokens")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The view."""
        if args.rows is not None and args.rows < 1:
            raise BadInputError(f"%llm guided: --rows must be 1 or more, got {args.rows}.")
        completion = look_up(args.completion, context.shell.user_ns) if args.completion else _last(context)
        if not isinstance(completion, Completion):
            raise BadInputError(
                f"%llm guided: {args.completion} is no Completion but {type(completion).__name__}.",
                "Keep one with %%llm -o NAME.",
            )
        if completion.guidance is None:
            raise BadInputError(
                "%llm guided: this answer followed no constraint.",
                "Ask with --schema, --type, --regex, --choice or --grammar.",
            )
        return GuidanceView(completion, args.rows if args.rows or args.explain else SHOWN)


def _last(context: Context) -> Completion:
    found = context.lab.history.current
    if found is None or not found.completions:
        raise BadInputError("%llm guided: nothing was asked yet.", "Ask with %%llm --schema VAR.")
    return found.completions[-1]
