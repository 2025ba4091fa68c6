"""`%llm load`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab import _imports
from llmlab.display import model_line
from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.offers import add_from
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class Load(Command):
    """Load a model and make it the current one."""

    name: ClassVar[str] = "load"
    summary: ClassVar[str] = "load a model and make it the current one"
    details: ClassVar[str] = """
        MODEL is a name from the catalogue (%llm models), a GGUF file, a Hugging Face folder, or hf:org/repo.
        The engine is chosen by hardware and file format; the status line gives the reason.
        A model that would not fit into memory is refused before anything is loaded; --force loads it anyway.
        A model with the same name is replaced only after the new one has loaded.
        The value is the Model, so m = %llm load nano works too. In Python: llmlab.load("nano").
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm load nano", "the small model included in llmlab, in the engine that suits this machine"),
        ("%llm load nano --engine vllm --as fast", "in vLLM, with the name fast"),
        ("%llm load ./models/model-Q4_K_M.gguf --ctx 4096", "a GGUF file, with a context of 4096 tokens"),
        ("%llm load nano --engine llamacpp --quant F16 -x n_threads=2", "with an engine option"),
        ("%llm load nano --draft nano-draft", "speculative decoding with a smaller draft model; or --draft ngram"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and how to load it."""
        from llmlab.engines.registry import ENGINES

        parser.add("model", metavar="MODEL", complete="catalogue", help="catalogue name, path, or hf:org/repo")
        parser.add(
            "--engine", choices=("auto", *ENGINES), default="auto", help="the engine; auto chooses one and reports why"
        )
        parser.add("--quant", metavar="TAG", complete="quant", help="quant tag, such as F16, Q4_K_M, bf16 or awq")
        add_from(parser)
        parser.add("--as", dest="name", metavar="NAME", help="its name in this kernel")
        parser.add(
            "--ctx",
            type=integer,
            metavar="N",
            help="context length in tokens; default: 8192, or what was trained, or fits",
        )
        parser.add("--gpu-layers", type=integer, metavar="N", help="layers on the GPU (llamacpp); default: all")
        parser.add("--mmproj", metavar="FILE", help="the projector of a vision model (llamacpp); none: no images")
        parser.add("--tp", type=integer, default=1, metavar="N", help="GPUs to split the model over (vllm)")
        parser.add(
            "--max-concurrency", type=integer, metavar="N", help="maximum number of concurrent sequences; others wait"
        )
        parser.add(
            "--draft",
            metavar="MODEL|ngram",
            complete="catalogue",
            help="speculative decoding with a smaller model, or from n-grams of the text; doesn't change the output",
        )
        parser.add(
            "--lora",
            type=integer,
            metavar="N",
            help="adapter slots, which take GPU memory (vllm); default: 4 if they take little",
        )
        parser.add("--force", action="store_true", help="load even if the memory estimate says that it doesn't fit")
        parser.add(
            "-x",
            dest="extra",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            complete="extra",
            help="an engine option",
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Load, with a progress bar and a status line at the end; returns the Model."""
        extra = dict(_pair(item) for item in args.extra)
        if args.mmproj is not None:
            extra["mmproj"] = args.mmproj
        lab = context.lab
        # Import now, so that an interrupt of the first %%llm doesn't hit an import.
        _imports.load("llmlab.magics.commands.cell")
        title = f"loading {args.name or args.model}"
        with reporting(ProgressBar(context.shell, title), title) as bar:
            model = lab.load(
                args.model,
                engine=args.engine,
                quant=args.quant,
                name=args.name,
                ctx=args.ctx,
                gpu_layers=args.gpu_layers,
                tp=args.tp,
                max_concurrency=args.max_concurrency,
                force=args.force,
                extra=extra,
                progress=bar,
                from_=args.from_,
                draft=args.draft,
                lora=args.lora,
            )
        line = model_line(model)
        bar.finish(line)
        return context.silence.mark(model, cls.typed(), line)


def _pair(item: str) -> tuple[str, Any]:
    key, sign, value = item.partition("=")
    if not sign or not key:
        raise BadInputError(f"%llm load: -x takes KEY=VALUE, got {item!r}.", "For example -x n_threads=2")
    return key, value
