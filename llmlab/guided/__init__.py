"""Guided generation: schema | type | regex | choice | grammar -> a constraint that both engines follow.

`make` checks what the user gave and raises before anything is generated; a `Compiler` (one for each tokenizer) turns
the guide into token masks; `Closer` finishes a text that runs out of tokens.
"""

from __future__ import annotations

from llmlab.guided.constraints import make
from llmlab.guided.guide import Guide, Kind
from llmlab.guided.partial import partial_json

__all__ = ["Guide", "Kind", "make", "partial_json"]
