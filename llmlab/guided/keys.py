"""Objects whose keys may come in any order: `"x-guidance": {"key_order": "any"}` in a schema."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any
from urllib.parse import unquote

from llmlab.errors import BadInputError
from llmlab.guided.walk import MANY, NAMED, change, everything, quote

ORDERS = ("schema", "any")
"""Values of `key_order`: the order in which the schema declares the keys (default), or any."""
_MOST_NAMES = 100
"""An object with more properties keeps their order: the mask library compares every two patterns (200: 1.6 s)."""
_BY_KEYS = frozenset(("properties", "patternProperties", "required", "$ref"))


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


def together(node: dict[str, Any]) -> dict[str, Any]:
    """A subschema with `patternProperties` and `additionalProperties` side by side.

    With `allOf`, `anyOf` or the like between them, the mask library takes them as two schemas, and
    `additionalProperties: false` allows no pattern.
    """
    own = {key: value for key, value in node.items() if key in ("patternProperties", "additionalProperties")}
    return {**own, **{key: value for key, value in node.items() if key not in own}} if len(own) == 2 else node


def unordered(text: str) -> tuple[str, tuple[str, ...]]:
    """A schema for the masks without an order of keys.

    The mask library writes `properties` and `required` in their order, but the keys of `patternProperties` in any:
    each property becomes a pattern that matches its name only. Which keys are required is left to the validator, and
    so is `oneOf` where objects are told apart by their keys.

    Args:
        text: the schema, normalised for the mask library.

    Returns:
        The schema, and the JSON pointers of the keywords that it no longer enforces; "" if an object has too many
        properties.
    """
    schema = json.loads(text)
    checked = []
    for pointer, node in everything(schema):
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict) and len(node["properties"]) > _MOST_NAMES:
                return "", ()
            checked += [f"{pointer}/{key}" for key in ("properties", "required") if node.get(key)]
            checked += [f"{pointer}/oneOf"] if _of_objects(node) else []
    return json.dumps(change(schema, _patterns), ensure_ascii=False), tuple(checked)


def _patterns(node: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in node.items() if key not in ("properties", "required")}
    named = node.get("properties")
    if isinstance(named, dict) and named:
        given = node.get("patternProperties") or {}
        # The library refuses patterns that match the same name: there, only the given pattern is enforced.
        patterns = {_pattern(name): one for name, one in named.items() if not any(_matches(one, name) for one in given)}
        out = together({**out, "patternProperties": {**patterns, **given}})
    if _of_objects(node):
        branches = {"anyOf": out.pop("oneOf")}
        out = {**out, "allOf": [*out.get("allOf", ()), branches]} if "anyOf" in out else {**out, **branches}
    if isinstance(node.get("$ref"), str):
        out["$ref"] = _reference(node["$ref"])
    return out


def _of_objects(node: dict[str, Any]) -> bool:
    """Whether a schema has a `oneOf` that may tell objects apart by their keys."""
    return any(
        isinstance(one, dict) and not _BY_KEYS.isdisjoint(one)
        for branch in node.get("oneOf") or ()
        for _, one in everything(branch)
    )


def _reference(reference: str) -> str:
    """A reference, where it points into `properties` to the pattern instead."""
    if not reference.startswith("#/"):
        return reference
    steps = unquote(reference[2:]).split("/")
    place = 0
    while place < len(steps):
        if steps[place] == "properties" and place + 1 < len(steps):
            name = steps[place + 1].replace("~1", "/").replace("~0", "~")
            steps[place : place + 2] = "patternProperties", _pattern(name)
        numbered = steps[place] in MANY and steps[place + 1 : place + 2] and steps[place + 1].isdigit()
        place += 2 if steps[place] in NAMED or numbered else 1
    return quote("#/" + "/".join(steps))


def _pattern(name: str) -> str:
    return f"^(?:{''.join(map(_escaped, name))})$"


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern of the mask library matches a name, as far as Python can tell."""
    with contextlib.suppress(re.error):
        return bool(
            re.search(re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: f"\\U{int(found[1], 16):08x}", pattern), name)
        )
    return False


def _escaped(char: str) -> str:
    return char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}"
