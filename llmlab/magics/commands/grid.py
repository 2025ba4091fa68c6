"""`%llm grid`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab.display.live import ProgressBar
from llmlab.engines.registry import ENGINES
from llmlab.errors import BadInputError
from llmlab.loading.switch import bare_spec
from llmlab.magics.command import Command, Context
from llmlab.magics.expansion import look_up
from llmlab.magics.parser import Parser, integer, number
from llmlab.magics.progress import reporting


class Grid(Command):
    """Run an experiment."""

    name: ClassVar[str] = "grid"
    summary: ClassVar[str] = "an experiment: prompts by models, quants, adapters, settings; scored and compared"
    details: ClassVar[str] = """
        Every prompt is answered with every combination of what is given: models, engines, quants, adapters, system
        prompts and temperatures. {{column}} in a prompt is filled in from --data; the expected answer is its column
        reference, answer, expected, completion or target. Each model is loaded once. Answers are kept by their content:
        the same line goes on after an interrupt or a kernel restart, and a longer one computes only what is new.

        The value is the experiment, shown as a table of means with n and 95 % intervals: exp.compare("quant") says in
        words what differs and what the data can't tell, exp.frame has a row per answer, exp.show() is a widget.
        In Python: llmlab.experiment(...), which also takes constraints, params and scorers of your own. See
        docs/experiments.md.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm grid questions --quants F16 Q4_K_M --scorers exact tokens", "two quants of the current model"),
        (
            "%llm grid prompts --data rows --models nano --adapters none pirate --scorers contains -o exp",
            "templates over rows of data, with an adapter and without",
        ),
        ("%llm grid prompts --models nano -t 0 0.8 --seeds 3", "two temperatures, three draws each"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The prompts, the axes and the scorers."""
        parser.add("prompts", metavar="VAR", complete="variable", help="a text, or a list of texts or conversations")
        parser.add("--data", metavar="DATA", complete="variable", help="rows: a variable, a file or a data set")
        parser.add("--models", nargs="+", metavar="MODEL", complete="catalogue", help="default: the current model")
        parser.add("--engines", nargs="+", choices=tuple(ENGINES), metavar="ENGINE", help="llamacpp, vllm or both")
        parser.add("--quants", nargs="+", metavar="TAG", complete="quant", help="quants of each model")
        parser.add("--adapters", nargs="+", metavar="NAME", complete="shipped", help="adapters; none: the base model")
        parser.add("--systems", metavar="VAR", complete="variable", help="a list or dict of system prompts")
        parser.add("-t", "--temperatures", nargs="+", type=number, metavar="T", help="temperatures; default 0")
        parser.add("--max-tokens", type=integer, metavar="N", help="maximum tokens per answer")
        parser.add("--seeds", type=integer, metavar="N", help="number of seeds")
        parser.add("--repeats", type=integer, metavar="N", help="repetitions of each seed")
        parser.add(
            "--scorers",
            nargs="+",
            metavar="SCORER",
            complete="scorer",
            help="built-in ones, or variables with functions",
        )
        parser.add("--ctx", type=integer, metavar="N", help="context length of the loaded models")
        parser.add("--name", metavar="NAME", help="the experiment's name; default: the variable's")
        parser.add("--fresh", action="store_true", help="answer everything again")
        parser.add("-o", "--out", metavar="VAR", complete="variable", help="store the experiment in this variable")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Run it, with a progress bar; returns the experiment."""
        experiment = _declared(args, context)
        title = f"experiment {experiment.name}"
        kept = "interrupted; the answers so far are kept, and the same line goes on from there"
        with reporting(ProgressBar(context.shell, title), title, interrupted=kept) as bar:
            experiment.run(fresh=args.fresh, progress=bar)
        bar.finish(experiment.line)
        if args.out:
            context.shell.user_ns[args.out] = experiment
        return experiment


def _declared(args: argparse.Namespace, context: Context) -> Any:
    from llmlab.experiments.design import make
    from llmlab.experiments.experiment import Experiment
    from llmlab.experiments.scoring import find

    names = context.shell.user_ns
    data: Any = names.get(args.data, args.data) if args.data else None
    params: dict[str, Any] = {"max_tokens": args.max_tokens} if args.max_tokens is not None else {}
    given = {
        "engines": args.engines,
        "quants": args.quants,
        "adapters": args.adapters,
        "systems": look_up(args.systems, names) if args.systems else None,
        "seeds": args.seeds,
        "repeats": args.repeats,
    }
    design = make(
        args.name or (args.prompts if args.prompts.isidentifier() else "grid"),
        prompts=names.get(args.prompts, args.prompts),
        data=data,
        models=[_model(name, args, context) for name in args.models or [None]],
        params=[{"temperature": t, **params} for t in args.temperatures or [0.0]],
        **{name: value for name, value in given.items() if value is not None},
    )
    scorers = [find(names.get(name, name)) for name in args.scorers or ()]
    return Experiment(design, scorers, lab=context.lab, ctx=args.ctx)


def _model(name: str | None, args: argparse.Namespace, context: Context) -> Any:
    """A loaded model by its name, or what is to be loaded: another quant or engine of a loaded one, too."""
    lab = context.lab
    if name is None and lab.current is None:
        raise BadInputError("%llm grid: no model is loaded.", "Name one: --models nano")
    loaded = lab.models.get(name) if name is not None else lab.current
    if loaded is None:
        return name
    varied = args.quants or args.engines
    return bare_spec(loaded.source.spec) if varied and loaded.url is None else loaded
