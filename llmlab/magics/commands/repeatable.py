"""`%llm repeatable`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class Repeatable(Command):
    """Check whether a model gives the same answers again."""

    name: ClassVar[str] = "repeatable"
    summary: ClassVar[str] = "whether a model answers the same again, and what changes it"
    details: ClassVar[str] = """
        Each prompt is answered greedily alone, and then with one thing changed: again, in a batch, after the prefix
        cache, beside other adapters, after a reload, on the other engine. At the first token that differs, the gap is
        compared with the resolution of the number format: within it, it is rounding; beyond it, a fault. The value is
        the table: .holds, .faults, .frame, .save(path). In Python: llmlab.repeatable(model, prompts).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ('%llm repeatable "What is the capital of France?"', "the current model, on every axis"),
        ("%llm repeatable prompts -m nano --axes batch engine", "the prompts in a variable, on two axes"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The prompts and the axes."""
        from llmlab.measure.repeatability import AXES

        names = [axis.replace(" ", "-") for axis in AXES]
        parser.add("prompts", nargs="+", metavar="PROMPT", complete="variable", help="texts, or variables with texts")
        parser.add("-m", "--model", metavar="NAME", complete="model", help="a loaded model; default: the current")
        parser.add("--axes", nargs="+", choices=names, metavar="AXIS", help=f"what to change: {', '.join(names)}")
        parser.add("--max-tokens", type=integer, default=48, metavar="N", help="most tokens per answer; default 48")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Compare, with a progress bar; returns the certificate."""
        from llmlab.measure.repeatability import repeat

        model = context.lab.get(args.model)
        prompts = [one for word in args.prompts for one in _prompts(word, context.shell.user_ns)]
        axes = [axis.replace("-", " ") for axis in args.axes] if args.axes else None
        title = f"repeating {model.name}"
        with reporting(ProgressBar(context.shell, title), title) as bar:
            found = repeat(model, prompts, max_tokens=args.max_tokens, axes=axes, progress=bar)
        bar.finish(f"repeated {model.name}: {'the same' if found.holds else 'not the same'} everywhere it was run")
        return found


def _prompts(word: str, names: Mapping[str, Any]) -> list[Any]:
    """The prompts in a variable, or the word itself."""
    if word not in names:
        return [word]
    value = names[word]
    if isinstance(value, str):
        return [value]
    found = list(value) if isinstance(value, Iterable) else []
    if not found:
        raise BadInputError(
            f"%llm repeatable: {word} must hold prompts, got {type(value).__name__}.", "Give a list of texts."
        )
    return found
