"""The llama.cpp engine: llama-cpp-python's low-level functions under one continuously batching loop."""

from llmlab.engines.llamacpp.engine import LlamaCppEngine

__all__ = ["LlamaCppEngine"]
