"""The remote engine: models of a server, over OpenAI's API or Ollama's own."""

from llmlab.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
