"""`%llm show`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import FormsView, HeaderView, ModelView, OffersView
from llmlab.errors import LoadError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Show(Command):
    """Show a model's metadata."""

    name: ClassVar[str] = "show"
    summary: ClassVar[str] = "show a model's metadata without loading it"
    details: ClassVar[str] = """
        Architecture, parameters, quant, context, chat template, licence and tensor types, read from the files' headers.
        Of a model on the hub, only the headers are downloaded. The value's .header has all of it (.header.metadata,
        .header.tensors, .header.chat_template), .forms the available forms. --discover lists the hub's quantizations of
        the model instead. Of an attached model: what its server takes, and the tokens used.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm show nano", ""),
        ("%llm show ./models/model-Q4_K_M.gguf", "a file that isn't in the catalogue"),
        ("%llm show qwen3-4b --quant Q8_0", "a model on the hub"),
        ("%llm show qwen3-4b --discover --quant Q3_K_M", "the authors who publish this quant"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and its form."""
        from llmlab.engines.registry import ENGINES

        parser.add(
            "model", metavar="MODEL", complete="catalogue", help="catalogue name, loaded model, path or hf:org/repo"
        )
        parser.add("--quant", metavar="TAG", complete="quant", help="quant tag")
        parser.add("--engine", choices=("auto", *ENGINES), default="auto", help="the engine")
        parser.add(
            "--from",
            dest="from_",
            metavar="AUTHOR|REPO",
            complete="author",
            help="the author or repository of a hub model's quantization",
        )
        parser.add("--discover", action="store_true", help="list the hub's quantizations, by author")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Read the headers."""
        from llmlab.files.headers import read_header

        engine = None if args.engine == "auto" else args.engine
        if args.discover:
            from llmlab.hub.discover import find

            return OffersView(find(args.model, quant=args.quant, engine=engine), args.quant)
        loaded = context.lab.models.get(args.model)
        plain = (args.quant, engine, args.from_) == (None, None, None)
        if loaded is not None and loaded.url is not None:
            return ModelView(loaded)
        if loaded is not None and plain:
            return HeaderView(read_header(loaded.path))
        from llmlab.hub.spec import parse
        from llmlab.loading.forms import find as find_forms
        from llmlab.loading.storage import show

        spec = parse(args.model)
        if spec.path is not None or not plain:
            return HeaderView(show(args.model, quant=args.quant, engine=engine, from_=args.from_))
        forms = find_forms(spec)
        ready = next((form for form in forms if form.action == "ready"), None)
        try:
            header = show(args.model, quant=ready.quant, engine=ready.engine) if ready is not None else show(args.model)
        except LoadError as error:
            # The catalogue's forms can be shown even if the hub can't be reached.
            return FormsView(args.model, forms, note=str(error))
        return HeaderView(header, FormsView(args.model, forms))
