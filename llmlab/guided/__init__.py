"""Guided generation: schema, type, regex, choice or grammar -> a constraint that both engines enforce.

`make` validates the constraint before anything is generated; a `Compiler` (one per tokenizer) turns it into token
masks; `Closer` completes a text before its token budget runs out.
"""

from __future__ import annotations

from typing import Annotated, Any

from llmlab.guided.constraints import UNBOUNDED, make
from llmlab.guided.guide import Guide, Kind
from llmlab.guided.partial import partial_json

__all__ = ["Guide", "Kind", "make", "partial_json", "unbounded"]


def unbounded(kind: Any) -> Any:
    """A type for `type=` without llmlab's limits on the digits of numbers, the length of texts and of lists.

    Args:
        kind: the type.

    Example:
        >>> guide = llmlab.guided.make(type=llmlab.guided.unbounded(list[str]))
        >>> "maxItems" in guide.schema, "maxItems" in llmlab.guided.make(type=list[str]).schema
        (False, True)
    """
    return Annotated[kind, UNBOUNDED]
