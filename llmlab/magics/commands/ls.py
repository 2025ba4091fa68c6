"""`%llm ls`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import LedgerView, ModelList
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Ls(Command):
    """List the loaded models."""

    name: ClassVar[str] = "ls"
    summary: ClassVar[str] = "list the loaded models, with estimated and measured memory"
    details: ClassVar[str] = """
        The current model, which %%llm uses, is marked with *; the address is below, if they are served. The value is a
        sequence of the models.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm ls", ""),
        ("%llm ls -v", "with each engine's build, threads and KV cache"),
        ("%llm ls --ledger", "what each load took, over all sessions; the value's .frame has the bytes"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The level of detail."""
        parser.add(
            "-v", "--verbose", action="store_true", help="also show each engine's build, device, threads, KV cache"
        )
        parser.add("--ledger", action="store_true", help="the memory of all loads: estimated, measured, returned")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The list."""
        lab = context.lab
        if args.ledger:
            return LedgerView(lab.ledger)
        served = lab.server.url if lab.server is not None else ""
        return ModelList(lab.models, lab.current, verbose=args.verbose, served=served)
