"""`%llm eval`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display.live import ProgressBar
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class Eval(Command):
    """Evaluate a loaded model on benchmarks."""

    name: ClassVar[str] = "eval"
    summary: ClassVar[str] = "lm-eval's benchmarks on a loaded model, with intervals"
    details: ClassVar[str] = """
        Runs tasks of lm-evaluation-harness on a model as it is loaded, in its engine, quant and adapter, and gives its
        figures with n and 95 % intervals. A task is one of lm-eval's names, or a folder with a YAML file and JSON
        Lines, which needs no hub; countries and capitals come with llmlab. .samples has every item, .compare(other)
        says what differs between two evaluations. Needs pip install 'llmlab[evals]'. In Python: llmlab.evaluate(...).
        Quants side by side: %llm quant --compare F16 Q4_K_M --tasks countries.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm eval countries capitals", "the current model on the tasks that come with llmlab"),
        ("%llm eval ./tasks/ours --shots 2 -a pirate", "your own tasks, with an adapter"),
        ("%llm eval arc_easy --limit 100 -m nano", "one of lm-eval's, whose data are on the hub"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The tasks and how they are asked."""
        parser.add("tasks", nargs="+", metavar="TASK", complete="task", help="lm-eval's names, folders or YAML files")
        parser.add("-m", "--model", metavar="NAME", complete="model", help="a loaded model; default: the current")
        parser.add("-a", "--adapter", metavar="NAME[:SCALE]", complete="adapter", help="an attached adapter, or none")
        parser.add("--shots", type=integer, metavar="N", help="examples in each prompt; default: the task's")
        parser.add("--limit", type=integer, metavar="N", help="only the first N items of each task")
        parser.add("--chat", action="store_true", help="ask through the chat template")
        parser.add("-s", "--system", metavar="TEXT", help="a system prompt")
        parser.add("--include", action="append", default=[], metavar="FOLDER", help="look up task names here, too")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Evaluate, with a progress bar; returns the evaluation."""
        from llmlab.evaluation import evaluate

        model = context.lab.get(args.model)
        title = f"evaluating {model.name}"
        with reporting(ProgressBar(context.shell, title), title) as bar:
            found = evaluate(
                model,
                args.tasks,
                adapter=model.adapter if args.adapter is None else args.adapter,
                shots=args.shots,
                limit=args.limit,
                chat=args.chat,
                system=args.system,
                include=args.include,
                progress=bar,
            )
        bar.finish(found.line)
        return found
