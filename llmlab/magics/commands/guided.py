"""`%llm guided`: the effect of a constraint on an answer."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import GuidanceView
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.expansion import look_up
from llmlab.magics.parser import Parser, integer
from llmlab.types import Completion

SHOWN = 24


class Guided(Command):
    """Explain a guided completion."""

    name: ClassVar[str] = "guided"
    summary: ClassVar[str] = "show the effect of a constraint (--schema, --type, ...) on the last answer"
    details: ClassVar[str] = """
        For each token: the probability that the constraint removed, and the model's most likely token without it.
        A high mean means that the constraint works against the model: ask for the enforced format in the prompt.
        The same in Python: completion.guidance.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm guided --explain", "the last answer, the tokens with the most removed probability"),
        ("%llm guided answer --explain --rows 200", "a completion stored with -o answer"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The completion, and the number of tokens."""
        parser.add(
            "completion", nargs="?", metavar="VAR", complete="variable", help="a Completion; default: the last answer"
        )
        parser.add(
            "--explain",
            action="store_true",
            help="token by token (without it: the tokens with the most removed probability)",
        )
        parser.add("--rows", type=integer, metavar="N", help="show at most N tokens")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The view."""
        if args.rows is not None and args.rows < 1:
            raise BadInputError(f"%llm guided: --rows must be 1 or more, got {args.rows}.")
        completion = look_up(args.completion, context.shell.user_ns) if args.completion else _last(context)
        if not isinstance(completion, Completion):
            raise BadInputError(
                f"%llm guided: {args.completion} is not a Completion but a {type(completion).__name__}.",
                "Store one with %%llm -o NAME.",
            )
        if completion.guidance is None:
            raise BadInputError(
                "%llm guided: this answer had no constraint.",
                "Prompt with --schema, --type, --regex, --choice or --grammar.",
            )
        return GuidanceView(completion, args.rows if args.rows or args.explain else SHOWN)


def _last(context: Context) -> Completion:
    found = context.lab.history.current
    if found is None or not found.completions:
        raise BadInputError("%llm guided: there is no answer yet.", "Prompt a model with %%llm --schema VAR.")
    return found.completions[-1]
