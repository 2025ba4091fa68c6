"""`%llm doctor`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import DoctorView
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Doctor(Command):
    """Check the installation."""

    name: ClassVar[str] = "doctor"
    summary: ClassVar[str] = "check engines, builds, GPU, memory and folders, with a fix for each problem"
    examples: ClassVar[tuple[tuple[str, str], ...]] = (("%llm doctor", ""),)

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """None."""

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:  # noqa: ARG003
        """The report."""
        from llmlab.doctor import examine

        return DoctorView(examine(context.lab))
