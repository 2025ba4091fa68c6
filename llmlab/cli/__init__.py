"""The command line `llmlab`: parses arguments and calls the Python functions."""

from __future__ import annotations

from llmlab.cli.program import main, parser

__all__ = ["main", "parser"]
