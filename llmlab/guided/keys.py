"""Objects whose keys may come in any order: `"x-guidance": {"key_order": "any"}` in a schema."""

from __future__ import annotations

import json
from typing import Any

from llmlab.errors import BadInputError
from llmlab.guided.walk import change, everything

ORDERS = ("schema", "any")
"""Values of `key_order`: the order in which the schema declares the keys (default), or any."""


def any_order(schema: Any) -> bool:
    """Whether a schema allows the keys of its objects in any order.

    Raises:
        BadInputError: its `key_order` is unknown.

    Example:
        >>> any_order({"type": "object", "x-guidance": {"key_order": "any"}})
        True
    """
    own = schema.get("x-guidance") if isinstance(schema, dict) else None
    order = own.get("key_order", "schema") if isinstance(own, dict) else "schema"
    if order not in ORDERS:
        raise BadInputError(f"Unknown key_order {order!r} at /x-guidance.", f"Known ones: {', '.join(ORDERS)}.")
    return bool(order == "any")


def unordered(text: str) -> tuple[str, tuple[str, ...]] | None:
    """A schema for the masks without an order of keys.

    The mask library writes `properties` and `required` in their order, but the keys of `patternProperties` in any:
    each property becomes a pattern that matches its name only. Which keys are required is left to the validator.

    Args:
        text: the schema, normalised for the mask library.

    Returns:
        The schema, and the JSON pointers of the keywords that it no longer enforces; None if a reference points into
        `properties`, which would no longer be there.
    """
    schema = json.loads(text)
    for _, node in everything(schema):
        if isinstance(node, dict) and "/properties/" in str(node.get("$ref", "")):
            return None
    checked = tuple(
        f"{pointer}/{key}"
        for pointer, node in everything(schema)
        if isinstance(node, dict)
        for key in ("properties", "required")
        if node.get(key)
    )
    return json.dumps(change(schema, _patterns), ensure_ascii=False), checked


def _patterns(node: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in node.items() if key not in ("properties", "required")}
    named = node.get("properties")
    if isinstance(named, dict) and named:
        patterns = {f"^(?:{''.join(map(_escaped, name))})$": one for name, one in named.items()}
        out["patternProperties"] = {**patterns, **(node.get("patternProperties") or {})}
    return out


def _escaped(char: str) -> str:
    return char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}"
