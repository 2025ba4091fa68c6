"""`%llm advise`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display.live import ProgressBar
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, whole
from llmlab.magics.progress import reporting


class Advise(Command):
    """Say which engine and quant suit a model, a machine and a use."""

    name: ClassVar[str] = "advise"
    summary: ClassVar[str] = "say which engine and quant suit a model on this machine, and why"
    details: ClassVar[str] = """
        Looks at the hardware, the installed engines, the forms that the model can be had in, what fits into memory, and
        what the engines declare that they can do. What can't do it is out; then --measure decides, where it is given;
        then the rule of --engine auto. Each reason says what it is worth: decides, helps, or note.

        The value's .engine, .quant and .command say what to load, .frame holds the reasons. Needs: guided, tools, lora,
        speculation, gguf, safetensors, batch, logprobs, seed and others. docs/advise.md has the whole.
        In Python: llmlab.advise("nano", concurrency=8, needs=["guided"]).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm advise nano", "one user on this machine"),
        ("%llm advise nano --concurrency 16 --measure", "many users, with both engines measured"),
        ("%llm advise mistral-7b --adapters 3 --need guided,tools", "what it must be able to do"),
        ("%llm advise llama-3.1-8b --hardware gpu:24", "on another machine: one GPU with 24 GiB free"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and its use."""
        parser.add(
            "model",
            metavar="MODEL",
            nargs="?",
            complete="catalogue",
            help="catalogue name, path, hf:org/repo or a loaded model; default: the current one",
        )
        parser.add("--concurrency", type=whole, default=1, metavar="N", help="requests at once")
        parser.add("--adapters", type=whole, default=0, metavar="N", help="different LoRA adapters at once")
        parser.add("--quant", metavar="TAG", complete="quant", help="the quant that it has to be")
        parser.add("--need", default="", metavar="NEED,...", help="what it must be able to do, with commas")
        parser.add(
            "--hardware", metavar="MACHINE", help="another machine: cpu:16, gpu:24, gpu:24x2 or mac:16 (GiB free)"
        )
        parser.add("--measure", action="store_true", help="load the engines that could do it and measure them")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The advice, with a bar while it is measured."""
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
                measure=args.measure,
                progress=bar,
            )
        if args.measure:
            bar.finish(f"measured for {advice.use}")
        return advice
