"""`%llm quant`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab.display import model_line
from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class Quant(Command):
    """Switch the current model to another quant, or compare quants."""

    name: ClassVar[str] = "quant"
    summary: ClassVar[str] = "switch the current model to another quant in place, or compare quants"
    details: ClassVar[str] = """
        %llm quant TAG replaces the current model with another quant of it: the conversation, the sampling defaults and
        the adapters are kept, and variables that refer to the model stay valid. A tag of the other engine also changes
        the engine; the status line says so. The case of a canonical name matters: bf16 is vllm's, BF16 llamacpp's. The
        old model is released after the new one has loaded, or before if both would not fit.

        %llm quant --compare loads the quants one after the other and measures each against the first: size, memory,
        load time, speed, perplexity, KL divergence, top-1 agreement, and accuracy if the data has answers; with
        --tasks, lm-eval's figures, too. Earlier measurements are read from the run's file; a quant that fails is a row
        with the reason.

        %llm quant without arguments lists the quants that the current model can be switched to. The metrics are
        explained in docs/measures.md, which tag runs where in docs/quants.md. In Python:
        llmlab.lab().switch_quant("Q4_K_M"), llmlab.compare_quants(...).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm quant Q4_K_M", "switch the current model to 4 bits"),
        ("%llm quant awq", "from a GGUF in llamacpp to AWQ in vllm"),
        ("%llm quant --compare F16 Q8_0 Q4_K_M --data texts", "a table and a plot, measured on your own texts"),
        ("%llm quant --compare F16 Q4_K_M Q2_K --tasks countries", "benchmarks, compared in pairs (see %llm eval)"),
        ("%llm quant --compare bf16 awq gptq fp8 int8 --model nano", "a model other than the current one"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """A tag, or --compare and its options."""
        parser.add("tag", metavar="TAG", nargs="?", complete="quant", help="the quant to switch to")
        parser.add("-m", "--model", metavar="NAME", complete="model", help="a loaded model, or one from the catalogue")
        parser.add("--compare", nargs="+", metavar="TAG", help="quants to compare; the first is the reference")
        parser.add("--data", metavar="DATA", complete="variable", help="a variable, a file, or a dataset to measure on")
        parser.add("--window", type=integer, metavar="N", help="tokens per window; default 512, or what fits")
        parser.add("--windows", type=integer, metavar="N", help="maximum number of windows; default 8")
        parser.add(
            "--tasks", nargs="+", metavar="TASK", complete="task", help="lm-eval tasks to evaluate each quant on"
        )
        parser.add("--limit", type=integer, metavar="N", help="only the first N items of each task")
        parser.add("--fresh", action="store_true", help="ignore earlier measurements")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Switch, compare or list."""
        if args.compare:
            if args.tag:
                raise BadInputError(f"%llm quant: {args.tag} is before --compare.", "Put all tags after --compare.")
            return _compare(args, context)
        if args.tag is None:
            return _forms(args, context)
        lab = context.lab
        model = lab.get(args.model)
        bar = ProgressBar(context.shell, f"switching {model.name} to {args.tag}")
        with reporting(bar, f"switching {model.name}", interrupted=f"interrupted; {model.quant} is still loaded"):
            switched = lab.switch_quant(args.tag, name=model.name, progress=bar)
        line = model_line(switched)
        bar.finish(line)
        return context.silence.mark(switched, cls.typed(), line)


def _forms(args: argparse.Namespace, context: Context) -> object:
    from llmlab.display import FormsView
    from llmlab.hub.spec import parse
    from llmlab.loading.forms import find
    from llmlab.loading.switch import bare_spec

    model = context.lab.get(args.model)
    return FormsView(model.name, find(parse(bare_spec(model.source.spec))))


def _compare(args: argparse.Namespace, context: Context) -> object:
    from llmlab.loading.switch import bare_spec
    from llmlab.measure.quants import compare_quants

    lab = context.lab
    named = lab.models.get(args.model) if args.model else lab.current
    spec = args.model if named is None else bare_spec(named.source.spec)
    if spec is None:
        raise BadInputError("%llm quant --compare: no model is loaded.", "Name one: --model nano")
    data: Any = args.data
    if isinstance(data, str) and data in context.shell.user_ns:
        data = context.shell.user_ns[data]
    options = {name: value for name in ("window", "windows") if (value := getattr(args, name)) is not None}
    options |= {"tasks": args.tasks or (), "task_limit": args.limit}
    title = f"comparing {spec}"
    kept = "interrupted; results so far are kept, and the same line continues from there"
    with reporting(ProgressBar(context.shell, title), title, interrupted=kept) as bar:
        found = compare_quants(spec, args.compare, data=data, fresh=args.fresh, progress=bar, **options)
    bar.finish(found.line)
    return found
