"""`%llm unload`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Note
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Unload(Command):
    """Unload a model and free its memory."""

    name: ClassVar[str] = "unload"
    summary: ClassVar[str] = "unload a model and free its memory"
    details: ClassVar[str] = """
        Without a name, the current model is unloaded; the most recently loaded of the others becomes current. An
        attached model is detached; its server goes on.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm unload nano", ""),
        ("%llm unload --all", "every model"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The models to unload."""
        parser.add("name", nargs="?", metavar="NAME", complete="model", help="a loaded model; default: the current one")
        parser.add("--all", dest="everything", action="store_true", help="unload every model")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Unload, and report the unloaded models and the current one."""
        lab = context.lab
        gone = lab.unload(args.name, everything=args.everything)
        if not gone:
            return Note("No model was loaded.", gone)
        now = f" {lab.current.name} is the current model." if lab.current is not None else ""
        return Note(f"Unloaded {', '.join(gone)}.{now}", gone)
