"""Answers recorded token by token to a file, and an engine that replays them without weights."""

from llmlab.engines.replay.engine import ReplayEngine

__all__ = ["ReplayEngine"]
