"""`%llm load`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab import _imports
from llmlab.display import model_line
from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.loading.parallel import check_copies
from llmlab.magics.command import Command, Context
from llmlab.magics.offers import add_from
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting
from llmlab.types.parallel import EXECUTORS, Parallel


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
        ("%llm load llama-3.3-70b --tp 8 --hardware gpu:80x8 --dry-run", "the plan for another machine; loads nothing"),
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
        parser.add("--tp", type=integer, default=1, metavar="N", help="GPUs that each layer is split over (vllm)")
        parser.add("--pp", type=integer, default=1, metavar="N", help="groups of GPUs with a part of the layers (vllm)")
        parser.add("--dp", type=integer, default=1, metavar="N", help="copies of the model; with --dry-run (vllm)")
        parser.add("--nodes", type=integer, default=1, metavar="N", help="machines of a Ray cluster (vllm)")
        parser.add("--executor", choices=EXECUTORS, help="what starts vllm's processes; default: mp, ray for --nodes")
        parser.add("--dry-run", action="store_true", help="show the plan: arguments, memory per device, processes")
        parser.add("--hardware", metavar="MACHINE", help="with --dry-run: another machine, such as gpu:80x8 or mac:64")
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
        if args.dry_run:
            return _dry_run(args, extra)
        if args.hardware is not None:
            raise BadInputError("%llm load: --hardware describes a machine for --dry-run.", "Add --dry-run.")
        check_copies(Parallel(data=args.dp))
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
                pp=args.pp,
                nodes=args.nodes,
                executor=args.executor,
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


def _dry_run(args: argparse.Namespace, extra: dict[str, Any]) -> object:
    from llmlab.advice import dry_run

    for option, value in (("--draft", args.draft), ("--from", args.from_)):
        if value is not None:
            raise BadInputError(f"%llm load: --dry-run plans without {option}.", f"Leave {option} out.")
    return dry_run(
        args.model,
        engine=args.engine,
        quant=args.quant,
        ctx=args.ctx,
        gpu_layers=args.gpu_layers,
        tp=args.tp,
        pp=args.pp,
        dp=args.dp,
        nodes=args.nodes,
        executor=args.executor,
        max_concurrency=args.max_concurrency,
        lora=args.lora,
        extra=extra,
        hardware=args.hardware,
    )


def _pair(item: str) -> tuple[str, Any]:
    key, sign, value = item.partition("=")
    if not sign or not key:
        raise BadInputError(f"%llm load: -x takes KEY=VALUE, got {item!r}.", "For example -x n_threads=2")
    return key, value
