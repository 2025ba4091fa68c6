"""The magics `%llm` and `%%llm`. `register` adds them to a shell, `unregister` removes them."""

from __future__ import annotations

from llmlab.magics.registration import register, reloading, unregister

__all__ = ["register", "reloading", "unregister"]
