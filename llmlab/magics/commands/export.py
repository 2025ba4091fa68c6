"""`%llm export`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display.live import ProgressBar
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class ExportCommand(Command):
    """Write a deployment."""

    name: ClassVar[str] = "export"
    summary: ClassVar[str] = "the loaded model as a deployment for vllm, llama-server, ollama, compose, ..."
    details: ClassVar[str] = """
        Writes what another server needs to run the model in its current form: quant, adapters, context, sampling
        defaults, chat template, speculation. Its files are referred to with their checksums. What the target can't
        express is refused, or stated in the folder's README.

        --prove starts the server here (vllm, or llama-server from the package xllamacpp), sends it this model's latest
        requests of the run log, and reports how many greedy answers are equal. Ctrl-C ends the server.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm export vllm -o deployment", "a `vllm serve` command line"),
        ("%llm export llama-server --prove", "and whether it answers like the kernel"),
        ("%llm export compose --model nano --gpus 1", "Docker compose, with a GPU reserved"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The target, the folder and the proof."""
        from llmlab.deploy.exporting import TARGETS

        parser.add("target", choices=tuple(TARGETS), metavar="TARGET", help=f"{', '.join(TARGETS)}")
        parser.add("-o", "--out", metavar="FOLDER", help="where to write; default: MODEL-TARGET in the working folder")
        parser.add("--model", metavar="NAME", complete="model", help="a loaded model; default: the current one")
        parser.add("--prove", action="store_true", help="start it here and compare its answers with the kernel's")
        parser.add("--gpus", type=integer, metavar="N", help="GPUs to reserve; default: as the model is loaded")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Write the files, with a progress bar; returns the Export."""
        from llmlab.deploy.exporting import export
        from llmlab.deploy.requests import recorded

        lab = context.lab
        model = lab.get(args.model)
        ended = "ended early"
        title = f"exporting {model.name}"
        bar = ProgressBar(context.shell, title)
        with reporting(bar, title, interrupted=ended, failed=ended):
            made = export(
                model,
                args.target,
                out=args.out,
                prove=args.prove,
                gpus=args.gpus,
                prompts=recorded(lab.runlog, model) if args.prove else (),
                progress=bar,
            )
        bar.finish(f"exported {model.name} to {made.folder}")
        return made
