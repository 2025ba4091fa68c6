"""The magics `%llm` and `%%llm`. `register` puts them into a shell, `unregister` takes them out."""

from __future__ import annotations

from llmlab.magics.register import register, reloading, unregister

__all__ = ["register", "reloading", "unregister"]
