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
from llmlab.magics.parser import Parser, whole
from llmlab.magics.progress import reporting


class Load(Command):
    """Load a model and make it the current one."""

    name: ClassVar[str] = "load"
    summary: ClassVar[str] = "load a model and make it the current one"
    details: ClassVar[str] = """
        MODEL is a name from the catalogue (%llm models), a GGUF file, a Hugging Face folder, or hf:org/repo.
        The engine is chosen by what the machine and the files allow, and the line that stays says why.
        A model that would not fit into memory is refused before anything is read; --force loads it all the same.
        A name that is taken is replaced only after the new model stands.
        The value is the Model, so m = %llm load nano works too. In Python: llmlab.load("nano").
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm load nano", "the small model that comes with llmlab, in the engine that suits this machine"),
        ("%llm load nano --engine vllm --as fast", "in vLLM, called fast"),
        ("%llm load ./models/model-Q4_K_M.gguf --ctx 4096", "a GGUF file, with a context of 4096 tokens"),
        ("%llm load nano --engine llamacpp --quant F16 -x n_threads=2", "with an engine option"),
        ("%llm load nano --draft nano-draft", "with a smaller model that guesses tokens ahead; or --draft ngram"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """MODEL and how to load it."""
        from llmlab.engines.registry import ENGINES

        parser.add("model", metavar="MODEL", complete="catalogue", help="catalogue name, path, or hf:org/repo")
        parser.add("--engine", choices=("auto", *ENGINES), default="auto", help="the engine; auto chooses and says why")
        parser.add("--quant", metavar="TAG", complete="quant", help="quant tag, such as F16, Q4_K_M, bf16 or awq")
        add_from(parser)
        parser.add("--as", dest="name", metavar="NAME", help="what to call it")
        parser.add(
            "--ctx", type=whole, metavar="N", help="context length in tokens; default: what was trained, or fits"
        )
        parser.add("--gpu-layers", type=whole, metavar="N", help="layers on the GPU (llamacpp); default: all of them")
        parser.add("--tp", type=whole, default=1, metavar="N", help="GPUs to split the model over (vllm)")
        parser.add("--max-concurrency", type=whole, metavar="N", help="most sequences decoded at once; others wait")
        parser.add(
            "--draft",
            metavar="MODEL|ngram",
            complete="catalogue",
            help="guess tokens ahead with a smaller model, or from the text so far; the text stays the same",
        )
        parser.add("--force", action="store_true", help="load even when the estimate says that it doesn't fit")
        parser.add(
            "-x",
            dest="extra",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            complete="extra",
            help="an option of the engine",
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Load, with a bar while it lasts and one line at the end; returns the Model."""
        extra = dict(_pair(item) for item in args.extra)
        lab = context.lab
        # An interrupt of the first %%llm shall hit no import.
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
            )
        line = model_line(model)
        bar.finish(line)
        return context.silence.mark(model, cls.typed(), line)


def _pair(item: str) -> tuple[str, Any]:
    key, sign, value = item.partition("=")
    if not sign or not key:
        raise BadInputError(f"%llm load: -x takes KEY=VALUE, got {item!r}.", "For example -x n_threads=2")
    return key, value
