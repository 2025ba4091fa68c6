"""`%llm pull`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import PulledView
from llmlab.display.live import ProgressBar
from llmlab.magics.command import Command, Context
from llmlab.magics.offers import add_from
from llmlab.magics.parser import Parser
from llmlab.magics.progress import reporting


class Pull(Command):
    """Download a model without loading it."""

    name: ClassVar[str] = "pull"
    summary: ClassVar[str] = "download a model without loading it"
    details: ClassVar[str] = """
        The files go into the Hugging Face cache, which other tools use too. An interrupted download is resumed, each
        file's checksum is verified, and cached files are not downloaded again.

        A quant that the catalogue doesn't list is searched for among the hub's quantizations of the model: a trusted
        author's is used and reported; among untrusted authors, choose one with --from. In Python:
        llmlab.pull("qwen3-4b", quant="Q8_0").
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm pull qwen3-4b", "the default quant, for the engine that suits this machine"),
        ("%llm pull qwen3-4b --quant Q8_0", ""),
        ("%llm pull qwen3-4b --quant Q3_K_M --from bartowski", "a quant by a given author"),
        ("%llm pull hf:Qwen/Qwen3-4B-GGUF:Q4_K_M", "from a repository on the hub"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and its form."""
        from llmlab.engines.registry import ENGINES

        parser.add("model", metavar="MODEL", complete="catalogue", help="catalogue name or hf:org/repo[@rev][:QUANT]")
        parser.add("--quant", metavar="TAG", complete="quant", help="quant tag, such as Q4_K_M, bf16 or awq")
        parser.add(
            "--engine", choices=("auto", *ENGINES), default="auto", help="the engine to download for; auto chooses one"
        )
        add_from(parser)

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Download, with a progress bar and a status line at the end."""
        from llmlab.loading.storage import pull

        title = f"pulling {args.model}"
        with reporting(ProgressBar(context.shell, title), title) as bar:
            pulled = pull(args.model, quant=args.quant, engine=args.engine, from_=args.from_, progress=bar)
        view = PulledView(pulled)
        bar.finish(view.text())
        return context.silence.mark(view, cls.typed(), view.text())
