"""`%llm show`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import FormsView, HeaderView
from llmlab.magics.command import Bench, Command
from llmlab.magics.parser import Parser


class Show(Command):
    """Show what a model's files say of it."""

    name: ClassVar[str] = "show"
    summary: ClassVar[str] = "show what a model's files say of it, without loading it"
    details: ClassVar[str] = """
        Architecture, parameters, quant, context, chat template, licence and tensor types, read from headers only.
        For a model that isn't on this machine yet: the forms in which it can be had.
        The value's .header holds all of it (.header.metadata, .header.tensors, .header.chat_template).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm show nano", ""),
        ("%llm show ./models/model-Q4_K_M.gguf", "a file that isn't in the catalogue"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """Which model."""
        parser.add(
            "model", metavar="MODEL", complete="catalogue", help="catalogue name, loaded model, path or hf:org/repo"
        )

    @classmethod
    def run(cls, args: argparse.Namespace, bench: Bench) -> object:
        """Read the headers."""
        from llmlab.hub.headers import read_header

        loaded = bench.lab.models.get(args.model)
        if loaded is not None:
            return HeaderView(read_header(loaded.path))
        from llmlab.hub.resolve import parse, peek, resolve

        path = parse(args.model).path
        if path is not None:
            return HeaderView(read_header(path))
        forms = peek(args.model)
        if any(form.action == "ready" for form in forms):
            return HeaderView(read_header(resolve(args.model).path))
        return FormsView(args.model, forms)
