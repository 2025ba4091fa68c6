"""JSON schema as a tree: where its subschemas are, what they are called, and whether any finite text satisfies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_ONE = (
    "additionalProperties", "unevaluatedProperties", "propertyNames", "contains", "additionalItems", "unevaluatedItems",
    "not", "if", "then", "else", "contentSchema", "items",
)  # fmt: skip
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
# More steps than this, and a schema counts as satisfiable: the answer is only used to refuse.
_EFFORT = 20_000


def escape(name: object) -> str:
    """A name as a step of a JSON pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")


def children(schema: Any) -> Iterator[tuple[str, Any]]:
    """The subschemas right below one, each with the rest of its JSON pointer."""
    if not isinstance(schema, dict):
        return
    for key in _ONE:
        value = schema.get(key)
        if isinstance(value, dict | bool):
            yield f"/{key}", value
    for key in _MANY:
        value = schema.get(key)
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield f"/{key}/{place}", item
    for key in _NAMED:
        value = schema.get(key)
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, dict | bool):
                    yield f"/{key}/{escape(name)}", item


def everything(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """All subschemas with their JSON pointers, the root ("") first."""
    yield pointer, schema
    for step, child in children(schema):
        yield from everything(child, pointer + step)


def change(schema: Any, edit: Callable[[dict[str, Any]], Any]) -> Any:
    """A copy in which every subschema that is an object went through `edit`, the inner ones first."""
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    for key in _ONE:
        if isinstance(out.get(key), dict):
            out[key] = change(out[key], edit)
    for key in _MANY:
        if isinstance(out.get(key), list):
            out[key] = [change(item, edit) for item in out[key]]
    for key in _NAMED:
        if isinstance(out.get(key), dict):
            out[key] = {name: change(item, edit) for name, item in out[key].items()}
    return edit(out)


def without_silent(node: dict[str, Any]) -> dict[str, Any]:
    """A subschema without the keywords that say nothing where they stand, which the mask library refuses."""
    least, most = node.get("minContains", 1), node.get("maxItems")
    silent = {
        "uniqueItems": node.get("uniqueItems") is False or (isinstance(most, int | float) and most <= 1),
        "dependencies": not node.get("dependencies"),
        "dependentRequired": not any((node.get("dependentRequired") or {}).values()),
        "dependentSchemas": all(_says_nothing(one) for one in (node.get("dependentSchemas") or {}).values()),
        "if": "then" not in node and "else" not in node,
        "then": "if" not in node or _says_nothing(node.get("then")),
        "else": "if" not in node or _says_nothing(node.get("else")),
        "not": node.get("not") is False,
        "contains": least == 0 and "maxContains" not in node,
        "minContains": "contains" not in node or (least == 0 and "maxContains" not in node),
        "maxContains": "contains" not in node,
        **{key: _says_nothing(node.get(key)) for key in ("propertyNames", "unevaluatedProperties", "unevaluatedItems")},
    }
    out = {key: value for key, value in node.items() if not silent.get(key)}
    return without_silent(out) if len(out) < len(node) else out


def _says_nothing(schema: Any) -> bool:
    return schema is True or schema == {}


def resolve(root: Any, reference: str) -> Any:
    """What a reference inside the document points to.

    Raises:
        LookupError: it points outside, or to nothing.
    """
    from urllib.parse import unquote

    if reference == "#":
        return root
    if not reference.startswith("#/"):
        raise LookupError(reference)
    node = root
    for part in unquote(reference[2:]).split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        node = node[int(name)] if isinstance(node, list) else node[name]
    return node


def circular(root: Any) -> str | None:
    """A reference that leads back to itself on the spot (`a` is `a`, or anything else), which no judge can follow."""

    def here(node: Any) -> Iterator[str]:
        """The references that hold for the very value that a schema is asked about."""
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for key in ("allOf", "anyOf", "oneOf"):
                for item in node[key] if isinstance(node.get(key), list) else ():
                    yield from here(item)
            for key in ("not", "if", "then", "else"):
                yield from here(node.get(key))

    after: dict[str, list[str]] = {}
    waiting = [reference for _, node in everything(root) for reference in here(node)]
    while waiting:
        reference = waiting.pop()
        if reference in after:
            continue
        try:
            after[reference] = list(here(resolve(root, reference)))
        except (LookupError, ValueError, TypeError):
            after[reference] = []
        waiting += after[reference]
    for start in after:
        seen: set[str] = set()
        front = list(after[start])
        while front:
            reference = front.pop()
            if reference == start:
                return start
            if reference not in seen:
                seen.add(reference)
                front += after[reference]
    return None


def endless(root: Any, reference: str = "#") -> str | None:
    """The reference that makes a schema ask for an endless text (`a` requires `b`, which requires `a`), or None.

    Args:
        root: the whole schema.
        reference: which part of it to look at, as `$ref` says it.
    """
    steps = 0
    guilty: list[str] = []
    schema = root

    def finite(node: Any, path: frozenset[str]) -> bool:
        nonlocal steps
        steps += 1
        if not isinstance(node, dict) or steps > _EFFORT:
            return node is not False
        if "const" in node or "enum" in node:
            return True
        reference = node.get("$ref")
        if isinstance(reference, str):
            if reference in path:
                guilty.append(reference)
                return False
            try:
                target = resolve(schema, reference)
            except (LookupError, ValueError, TypeError):
                return True
            if not finite(target, path | {reference}):
                return False
        if not all(finite(item, path) for item in node.get("allOf") or ()):
            return False
        for key in ("anyOf", "oneOf"):
            branches = node.get(key)
            if isinstance(branches, list) and branches and not any(finite(item, path) for item in branches):
                return False
        types = node.get("type")
        kinds = [types] if isinstance(types, str) else types if isinstance(types, list) else ["string"]
        if any(kind not in ("object", "array") for kind in kinds):
            return True
        return any(_object(node, path) if kind == "object" else _array(node, path) for kind in kinds)

    def _object(node: dict[str, Any], path: frozenset[str]) -> bool:
        properties = node.get("properties") or {}
        return all(
            finite(properties[name], path)
            if name in properties
            else node.get("additionalProperties") is not False or "patternProperties" in node
            for name in node.get("required") or ()
        )

    def _array(node: dict[str, Any], path: frozenset[str]) -> bool:
        least = int(node.get("minItems") or 0)
        items = node.get("items")
        first = node.get("prefixItems") or (items if isinstance(items, list) else [])
        rest = node.get("additionalItems") if isinstance(items, list) else items
        if not all(finite(item, path) for item in first[:least]):
            return False
        return least <= len(first) or rest is None or finite(rest, path)

    try:
        start = resolve(root, reference)
    except (LookupError, ValueError, TypeError):
        return None
    return None if finite(start, frozenset({reference})) else (guilty[0] if guilty else reference)


def quote(pointer: str) -> str:
    """A JSON pointer as a URI's fragment has it."""
    from urllib.parse import quote as percent

    return percent(pointer, safe="/~$#!&'()*+,;=:@?%")
