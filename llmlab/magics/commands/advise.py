"""`%llm advise`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display.live import ProgressBar
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class Advise(Command):
    """Recommend an engine and a quant for a model, a machine and a workload."""

    name: ClassVar[str] = "advise"
    summary: ClassVar[str] = "recommend an engine and a quant for a model on this machine, with reasons"
    details: ClassVar[str] = """
        Considers the hardware, the installed engines, the model's available forms, the memory, and the engines'
        declared features. Engines that can't meet the needs are excluded; then --measure decides, if given; then the
        rule of --engine auto. Each reason has a strength: decides, helps, or note.

        The value's .engine, .quant and .command are what to load; .frame has the reasons. Needs: guided, tools, lora,
        speculation, gguf, safetensors, batch, logprobs, seed and others. Details: docs/advise.md.
        In Python: llmlab.advise("nano", concurrency=8, needs=["guided"]).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm advise nano", "one user on this machine"),
        ("%llm advise nano --concurrency 16 --measure", "16 concurrent requests, measuring both engines"),
        ("%llm advise mistral-7b --adapters 3 --need guided,tools", "with required features"),
        ("%llm advise llama-3.1-8b --hardware gpu:24", "on another machine: one GPU with 24 GB free"),
        ("%llm advise llama-3.3-70b --hardware gpu:80x8 --nodes 2", "on two machines, each with eight GPUs"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and its workload."""
        parser.add(
            "model",
            metavar="MODEL",
            nargs="?",
            complete="catalogue",
            help="catalogue name, path, hf:org/repo or a loaded model; default: the current one",
        )
        parser.add("--concurrency", type=integer, default=1, metavar="N", help="concurrent requests")
        parser.add("--adapters", type=integer, default=0, metavar="N", help="number of different LoRA adapters in use")
        parser.add("--quant", metavar="TAG", complete="quant", help="require this quant")
        parser.add("--need", default="", metavar="NEED,...", help="required features, separated by commas")
        parser.add(
            "--hardware", metavar="MACHINE", help="another machine: cpu:16, gpu:24, gpu:24x2 or mac:16 (GB free)"
        )
        parser.add("--nodes", type=integer, default=1, metavar="N", help="machines like it, joined in a Ray cluster")
        parser.add("--measure", action="store_true", help="load the suitable engines and measure them")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The advice, with a progress bar while measuring."""
        from llmlab.advice import advise

        ended = "ended early"
        bar = ProgressBar(context.shell, "advising")
        with reporting(bar, "advising", interrupted=ended, failed=ended):
            advice = advise(
                context.lab,
                args.model,
                concurrency=args.concurrency,
                adapters=args.adapters,
                quant=args.quant,
                needs=args.need,
                hardware=args.hardware,
                nodes=args.nodes,
                measure=args.measure,
                progress=bar,
            )
        if args.measure:
            bar.finish(f"measured for {advice.use}")
        return advice
