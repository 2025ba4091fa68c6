"""The loaded models as an HTTP server: OpenAI's, Anthropic's and Ollama's APIs, on one thread of the kernel."""

from llmlab.serving.server import Server, start

__all__ = ["Server", "start"]
