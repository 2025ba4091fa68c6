"""`%llm models`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Catalogue, StoredView
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Models(Command):
    """List the models that can be loaded by name, and what lies on this machine's disk."""

    name: ClassVar[str] = "models"
    summary: ClassVar[str] = "list the models that can be loaded by name, and what lies on disk"
    details: ClassVar[str] = """
        On disk: the Hugging Face cache, what llmlab converted or quantized, and parts of broken downloads, with size
        and when it was used last. In Python: llmlab.hub.catalogue.entries() and llmlab.hub.cache.on_disk().
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm models", ""),
        ("%llm models --disk", "only what lies on disk"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which list."""
        parser.add("--disk", action="store_true", help="only what lies on disk")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:  # noqa: ARG003
        """The catalogue, and what lies on disk."""
        from llmlab.hub.cache import on_disk
        from llmlab.hub.catalogue import entries

        stored = StoredView(on_disk())
        return stored if args.disk else Catalogue(entries(), stored)
