"""Walk a JSON schema: find and edit its subschemas, resolve references, and detect endless recursion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_ONE = (
    "additionalProperties", "unevaluatedProperties", "propertyNames", "contains", "additionalItems", "unevaluatedItems",
    "not", "if", "then", "else", "contentSchema", "items",
)  # fmt: skip
MANY = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
# After this many steps a schema counts as satisfiable.
_EFFORT = 20_000


def escape(name: object) -> str:
    """Escape a name for a JSON pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")


def children(schema: Any) -> Iterator[tuple[str, Any]]:
    """The direct subschemas, each with its relative JSON pointer."""
    if not isinstance(schema, dict):
        return
    for key in _ONE:
        value = schema.get(key)
        if isinstance(value, dict | bool):
            yield f"/{key}", value
    for key in MANY:
        value = schema.get(key)
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield f"/{key}/{place}", item
    for key in NAMED:
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
    """A copy with `edit` applied to every subschema that is an object, innermost first."""
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    for key in _ONE:
        if isinstance(out.get(key), dict):
            out[key] = change(out[key], edit)
    for key in MANY:
        if isinstance(out.get(key), list):
            out[key] = [change(item, edit) for item in out[key]]
    for key in NAMED:
        if isinstance(out.get(key), dict):
            out[key] = {name: change(item, edit) for name, item in out[key].items()}
    return edit(out)


def without_silent(node: dict[str, Any]) -> dict[str, Any]:
    """A subschema without its no-op keywords, which the mask library refuses."""
    least, most = node.get("minContains", 1), node.get("maxItems")
    silent = {
        "uniqueItems": node.get("uniqueItems") is False or (isinstance(most, int | float) and most <= 1),
        "dependencies": not node.get("dependencies"),
        "dependentRequired": not any((node.get("dependentRequired") or {}).values()),
        "dependentSchemas": all(_is_no_op(one) for one in (node.get("dependentSchemas") or {}).values()),
        "if": "then" not in node and "else" not in node,
        "then": "if" not in node or _is_no_op(node.get("then")),
        "else": "if" not in node or _is_no_op(node.get("else")),
        "not": node.get("not") is False,
        "contains": least == 0 and "maxContains" not in node,
        "minContains": "contains" not in node or (least == 0 and "maxContains" not in node),
        "maxContains": "contains" not in node,
        **{key: _is_no_op(node.get(key)) for key in ("propertyNames", "unevaluatedProperties", "unevaluatedItems")},
    }
    out = {key: value for key, value in node.items() if not silent.get(key)}
    return without_silent(out) if len(out) < len(node) else out


def _is_no_op(schema: Any) -> bool:
    return schema is True or schema == {}


def resolve(root: Any, reference: str) -> Any:
    """Resolve a reference within the document.

    Raises:
        LookupError: it points outside the document, or to nothing.
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
    """A reference that refers directly back to itself (`a` is `a`), which no validator can evaluate; None without."""

    def here(node: Any) -> Iterator[str]:
        """The references that apply to the same value as the schema itself."""
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


def impossible(schema: Any) -> bool:
    """Whether it obviously requires `false`, which no value satisfies."""
    if not isinstance(schema, dict):
        return schema is False
    if schema.get("not") in (True, {}):
        return True
    if any(impossible(item) for item in schema.get("allOf") or ()):
        return True
    for key in ("anyOf", "oneOf"):
        branches = schema.get(key)
        if isinstance(branches, list) and branches and all(impossible(item) for item in branches):
            return True
    if schema.get("type") != "object":
        return False
    properties = schema.get("properties") or {}
    return any(impossible(properties.get(name)) for name in schema.get("required") or ())


def endless(root: Any, reference: str = "#") -> str | None:
    """The reference that requires an infinite text (`a` requires `b`, which requires `a`), or None.

    Args:
        root: the entire schema.
        reference: the part to check, as a `$ref`.
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
    """Percent-encode a JSON pointer for a URI fragment."""
    from urllib.parse import quote as percent

    return percent(pointer, safe="/~$#!&'()*+,;=:@?%")
