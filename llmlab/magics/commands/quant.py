"""`%llm quant`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab.display import model_line
from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, whole
from llmlab.magics.progress import reporting


class Quant(Command):
    """Switch the current model to another quant, or compare quants."""

    name: ClassVar[str] = "quant"
    summary: ClassVar[str] = "switch the current model to another quant in place, or compare quants"
    details: ClassVar[str] = """
        %llm quant TAG puts another quant of the current model in its place: the conversation, the sampling defaults
        and the adapters carry on, and a variable that holds the model goes on working. A tag of the other engine
        changes the engine too; the line says so. A canonical name is taken as it is spelled: bf16 is vllm's, BF16
        llamacpp's. The old one goes when the new one stands, or first where both would not fit.
        %llm quant --compare loads one quant after the other and measures each against the first: size, memory, load
        time, speed, perplexity, KL divergence, top-1 agreement, and accuracy where the data has answers. Rows that
        were measured before are taken from the run's file; a quant that fails becomes a row with its reason.
        %llm quant alone lists what the current model can become. What the figures mean: docs/measures.md; which tag
        runs where: docs/quants.md. In Python: llmlab.lab().switch_quant("Q4_K_M"), llmlab.compare_quants(...).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm quant Q4_K_M", "the current model, in four bits"),
        ("%llm quant awq", "from a GGUF in llamacpp to AWQ in vllm"),
        ("%llm quant --compare F16 Q8_0 Q4_K_M --data texts", "a table and a plot, on your own texts"),
        ("%llm quant --compare bf16 awq gptq fp8 int8 --model nano", "another model than the current one"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """A tag, or --compare and its options."""
        parser.add("tag", metavar="TAG", nargs="?", complete="quant", help="the quant to switch to")
        parser.add("-m", "--model", metavar="NAME", complete="model", help="a loaded model, or one of the catalogue")
        parser.add("--compare", nargs="+", metavar="TAG", help="quants to compare; the first is the reference")
        parser.add("--data", metavar="DATA", complete="variable", help="a variable, a file, or a dataset to measure on")
        parser.add("--window", type=whole, metavar="N", help="tokens a window; default 512, or what fits")
        parser.add("--windows", type=whole, metavar="N", help="most windows to score; default 8")
        parser.add("--fresh", action="store_true", help="measure again what was measured before")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Switch, compare or list."""
        if args.compare:
            if args.tag:
                raise BadInputError(f"%llm quant: {args.tag} stands before --compare.", "Put all tags after --compare.")
            return _compare(args, context)
        if args.tag is None:
            return _forms(args, context)
        lab = context.lab
        model = lab.get(args.model)
        bar = ProgressBar(context.shell, f"switching {model.name} to {args.tag}")
        with reporting(bar, f"switching {model.name}", interrupted=f"interrupted, {model.quant} stands"):
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
    title = f"comparing {spec}"
    kept = "interrupted; what was measured is kept, and the same line goes on there"
    with reporting(ProgressBar(context.shell, title), title, interrupted=kept) as bar:
        found = compare_quants(spec, args.compare, data=data, fresh=args.fresh, progress=bar, **options)
    bar.finish(found.line)
    return found
