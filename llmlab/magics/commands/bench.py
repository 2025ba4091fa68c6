"""`%llm bench`."""

from __future__ import annotations

import argparse
import importlib.util
from typing import ClassVar

from llmlab.display.live import ProgressBar, has_front_end
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class BenchCommand(Command):
    """Measure loaded models."""

    name: ClassVar[str] = "bench"
    summary: ClassVar[str] = "measure throughput and latency by concurrency"
    details: ClassVar[str] = """
        Measures tokens/s, TTFT, time per output token (p50, p95) and memory; several models alternate, so that changes
        of the machine's speed affect all of them. The value is a table, with a plot if altair is installed; .frame is a
        DataFrame. The same in Python: llmlab.measure.bench(model, concurrency=(1, 8)).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm bench", "the current model at 1, 2, 4, 8 and 16 concurrent requests"),
        ("%llm bench nano fast --concurrency 1,8 --max-tokens 128", "two loaded models, side by side"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The models and the measurement."""
        parser.add("models", nargs="*", metavar="NAME", complete="model", help="loaded models; default: the current")
        parser.add(
            "--concurrency",
            default="1,2,4,8,16",
            metavar="N,N,...",
            help="numbers of concurrent requests, separated by commas",
        )
        parser.add("--prompt-tokens", type=integer, default=128, metavar="N", help="approximate tokens per prompt")
        parser.add("--max-tokens", type=integer, default=64, metavar="N", help="tokens per answer")
        parser.add("--rounds", type=integer, default=3, metavar="N", help="repetitions; the median is reported")
        parser.add("--no-plot", action="store_true", help="show only the table")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Measure, with a progress bar; returns the result."""
        from llmlab.measure.speed import bench as measure

        numbers = [item.strip() for item in args.concurrency.split(",") if item.strip()]
        if not numbers or not all(item.isdigit() for item in numbers):
            raise BadInputError(
                f"%llm bench: --concurrency takes integers separated by commas, got {args.concurrency!r}.",
                "For example --concurrency 1,8,16",
            )
        models = [context.lab.get(name) for name in dict.fromkeys(args.models)] or [context.lab.get()]
        ended = "ended early"
        bar = ProgressBar(context.shell, "measuring")
        with reporting(bar, "measuring", interrupted=ended, failed=ended):
            result = measure(
                *models,
                concurrency=[int(item) for item in numbers],
                prompt_tokens=args.prompt_tokens,
                max_tokens=args.max_tokens,
                rounds=args.rounds,
                progress=bar,
            )
        bar.finish(f"measured {', '.join(model.name for model in models)}")
        if not args.no_plot and has_front_end(context.shell) and importlib.util.find_spec("altair"):
            from IPython.display import display

            display(result.plot())
        return result
