"""`%llm models`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Catalogue, CatalogueCheck, StoredView
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Models(Command):
    """List the models that can be loaded by name, and the cached files."""

    name: ClassVar[str] = "models"
    summary: ClassVar[str] = "list the models that can be loaded by name, and the cached files"
    details: ClassVar[str] = """
        Cached files: the Hugging Face cache, files converted or quantized by llmlab, and partial downloads, with size
        and last use. In Python: llmlab.hub.catalogue.entries() and llmlab.hub.cache.on_disk().

        --check compares the catalogue with the hub, with one request per repository: files and repositories that have
        other names now, gated repositories, and sizes. A renamed file is found by its tag and still loads.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm models", ""),
        ("%llm models --disk", "only the cached files"),
        ("%llm models --check", "what has changed on the hub"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The list to show."""
        parser.add("--disk", action="store_true", help="show only the cached files")
        parser.add("--check", action="store_true", help="compare the catalogue with the hub, and show the differences")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:  # noqa: ARG003
        """The catalogue, and the cached files."""
        from llmlab.hub.cache import on_disk
        from llmlab.hub.catalogue import entries, problems

        if args.check:
            from llmlab.hub.verification import verify

            listed = entries()
            return CatalogueCheck(verify(listed), sum(len(entry.files) for entry in listed))
        stored = StoredView(on_disk())
        return stored if args.disk else Catalogue(entries(), stored, problems())
