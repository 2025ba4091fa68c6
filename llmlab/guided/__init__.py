"""Guided generation: schema, type, regex, choice or grammar -> a constraint that both engines enforce.

`make` validates the constraint before anything is generated; a `Compiler` (one per tokenizer) turns it into token
masks; `Closer` completes a text before its token budget runs out.
"""

from __future__ import annotations

from llmlab.guided.constraints import make
from llmlab.guided.guide import Guide, Kind
from llmlab.guided.partial import partial_json

__all__ = ["Guide", "Kind", "make", "partial_json"]
