"""`%llm warm`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Note
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Warm(Command):
    """Import engines in the background."""

    name: ClassVar[str] = "warm"
    summary: ClassVar[str] = "import engines in the background, so that the first load is faster"
    details: ClassVar[str] = """
        %load_ext takes no arguments. To start with it, set LLMLAB_WARM=vllm in the kernel's environment.
        A load meanwhile waits for the import; Ctrl-C doesn't stop it. In Python: llmlab.warm("vllm").
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm warm vllm", "vLLM, whose import takes ten seconds and more"),
        ("%llm warm", "all that are installed"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The engines."""
        from llmlab.engines.registry import ENGINES

        parser.add(
            "engines", nargs="*", metavar="ENGINE", help=f"{' or '.join(ENGINES)}; default: all that are installed"
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:  # noqa: ARG003
        """Start the imports."""
        import llmlab

        llmlab.warm(*args.engines)
        names = ", ".join(args.engines) or "all installed engines"
        return Note(f"importing {names} in the background")
