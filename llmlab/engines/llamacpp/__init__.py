"""The llama.cpp engine: llama-cpp-python's low-level functions driven by a continuous-batching loop."""

from llmlab.engines.llamacpp.engine import LlamaCppEngine

__all__ = ["LlamaCppEngine"]
