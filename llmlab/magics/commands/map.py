"""`%llm map`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab import _imports
from llmlab.display.live import ProgressBar
from llmlab.errors import BadInputError
from llmlab.magics import constraint
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer, number
from llmlab.magics.progress import reporting


class Map(Command):
    """Answer a prompt for every row of a data set."""

    name: ClassVar[str] = "map"
    summary: ClassVar[str] = "a data set through a model, as a job that goes on after a crash"
    details: ClassVar[str] = """
        {{column}} in the prompt is filled in from each row. Rows are streamed, run in the model's batch, and written in
        order to a folder: after Ctrl-C, a crash or a kernel restart the same line goes on from there. A row that fails
        is kept with its error.

        Several models are the same one in several places (attached servers): they share the rows by their speed, and
        the rows of one that dies go to the others. --on ray uses actors that each load the model. The value is the job:
        .frame, .dataset(), .errors, .path. In Python: llmlab.map(...). See docs/jobs.md.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ('%llm map rows --prompt "What is the capital of {{country}}?" -t 0 -o job', "a variable with rows"),
        ("%llm map reviews.jsonl --prompt prompt --output moods --choice good,bad", "a file; the prompt's variable"),
        ("%llm map rows --prompt prompt --model far near -t 0", "two attached servers"),
        ("%llm map rows --prompt prompt --model nano --on ray --workers 2", "two actors of a Ray cluster"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The data, the prompt, where it runs, and the request's options."""
        parser.add("data", metavar="DATA", complete="variable", help="a variable with rows, or a file")
        parser.add(
            "--prompt",
            as_typed=True,
            metavar="TEXT|VAR",
            complete="variable",
            help="text with {{columns}}, or a variable with a text, a conversation or a function of the row",
        )
        parser.add("--model", nargs="+", metavar="MODEL", complete="catalogue", help="default: the current model")
        parser.add("--output", metavar="DIR", help="the results' folder; default: one in llmlab's data folder")
        parser.add("--on", metavar="PLACE", default="local", help="local, ray or ray://HOST:PORT")
        parser.add("--workers", type=integer, metavar="N", help="Ray: number of actors")
        parser.add("-s", "--system", as_typed=True, metavar="S", help="a system prompt")
        parser.add("-t", "--temperature", type=number, metavar="T", help="0 is greedy; default: the model's own")
        parser.add("--max-tokens", type=integer, metavar="N", help="maximum tokens per answer")
        parser.add("--seed", type=integer, metavar="N", help="the first row's seed; each further row has one more")
        parser.add("-a", "--adapter", metavar="NAME", complete="adapter", help="an adapter for all rows")
        parser.add("--adapter-column", metavar="COLUMN", help="the column with each row's adapter")
        parser.add("--columns", nargs="+", metavar="COLUMN", help="columns to keep; default: all")
        parser.add("--retries", type=integer, metavar="N", default=2, help="further tries of a failed row (2)")
        parser.add("--fresh", action="store_true", help="begin again")
        parser.add("-o", "--out", metavar="VAR", complete="variable", help="store the job in this variable")
        constraint.add_options(parser)

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Run it, with a progress bar; returns the job."""
        _imports.load("llmlab.jobs.job")
        from llmlab.jobs import job

        names = context.shell.user_ns
        if args.prompt is None:
            raise BadInputError("%llm map: there is no prompt.", 'For example --prompt "Summarize: {{text}}"')
        options: dict[str, Any] = constraint.options(args, names)
        for name in ("temperature", "max_tokens", "seed", "adapter"):
            if getattr(args, name) is not None:
                options[name] = getattr(args, name)
        models = [context.lab.models.get(name, name) for name in args.model or ()]
        kept = "interrupted; the rows so far are kept, and the same line goes on from there"
        with reporting(ProgressBar(context.shell, "map"), "map", interrupted=kept) as bar:
            found = job.run(
                names.get(args.data, args.data),
                names.get(args.prompt, args.prompt),
                model=models[0] if len(models) == 1 else models or None,
                output=args.output,
                on=args.on,
                workers=args.workers,
                engine="auto",
                quant=None,
                ctx=None,
                adapter_column=args.adapter_column,
                columns=args.columns,
                retries=args.retries,
                shard_rows=None,
                fresh=args.fresh,
                lab=context.lab,
                progress=bar,
                system=args.system,
                raw=False,
                options=options,
            )
        bar.finish(found.line)
        if args.out:
            names[args.out] = found
        return found
