"""The command line `llmlab`: it parses and calls; everything it does, one Python call does."""

from __future__ import annotations

from llmlab.cli.main import main, parser

__all__ = ["main", "parser"]
