"""The vLLM engine: paged attention, continuous batching and prefix caching, on top of `vllm.v1`'s step loop.

This package has the name of the package it wraps; inside it, `import vllm` is the real one because
imports are absolute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmlab.engines.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]


def __getattr__(name: str) -> Any:
    if name == "VllmEngine":
        from llmlab.engines.vllm.engine import VllmEngine

        return VllmEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
