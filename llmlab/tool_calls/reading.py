"""What the readers of call formats share: the result of a reading, and JSON values inside a text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmlab.types import ToolCall


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's text, parsed into content and calls. The calls have no ids yet."""

    content: str
    calls: tuple[ToolCall, ...] = ()


def call_of(value: Any, text: str) -> ToolCall:
    """The call in a JSON value; it has a `problem` if the value isn't a valid call."""
    if not isinstance(value, dict):
        return ToolCall("", {}, problem=f"{text[:200]!r} is not a JSON object")
    inner = value.get("function")
    name = value.get("name") or value.get("tool_name") or (inner if isinstance(inner, str) else None)
    if isinstance(inner, dict):
        value, name = inner, inner.get("name")
    if not isinstance(name, str) or not name:
        return ToolCall("", {}, problem=f"{text[:200]!r} has no name")
    arguments: Any = next((value[key] for key in ("arguments", "parameters") if key in value), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return ToolCall(name, {}, problem=f"the arguments of {name} are not JSON: {arguments[:200]!r}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return ToolCall(
            name, {}, problem=f"the arguments of {name} are not a JSON object: {json.dumps(arguments)[:200]}"
        )
    return ToolCall(name, arguments)


_DECODER = json.JSONDecoder()
_GAP = re.compile(r"[ \t\r\n,;]*")


def json_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends; markers inside its strings are ignored.

    Raises:
        ValueError: there is none.
    """
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def values_of(text: str) -> list[Any] | None:
    """The JSON values in a text, separated by whitespace, commas and semicolons; None if there is anything else."""
    values, position = [], gap(text, 0)
    while position < len(text):
        try:
            value, position = json_at(text, position)
        except ValueError:
            return None
        values.append(value)
        position = gap(text, position)
    return values


def gap(text: str, position: int) -> int:
    """The end of the whitespace, commas and semicolons at a position."""
    found = _GAP.match(text, position)
    return found.end() if found else position


def is_json(text: str) -> bool:
    """Whether a text is only JSON: an answer in JSON may contain a marker in a string."""
    return text.lstrip()[:1] in ("{", "[", '"') and values_of(text) is not None


def unreadable(content: list[str], calls: list[ToolCall], problem: str) -> Reading:
    """A reading that ends at an invalid call: where that call ends is unknown, so the rest is not parsed."""
    return Reading("".join(content).strip(), (*calls, ToolCall("", {}, problem=problem)))


def typed(call: ToolCall, parameters: Mapping[str, Any]) -> ToolCall:
    """Convert a call's text arguments: those that the tool's schema doesn't declare as text are parsed as JSON.

    Args:
        call: the call.
        parameters: the JSON schema of the tool's arguments; {} if unknown.
    """
    properties = parameters.get("properties", {})
    return replace(
        call,
        arguments={
            key: _typed(value, kinds_of(properties.get(key, {}), parameters)) for key, value in call.arguments.items()
        },
    )


_ANY_KIND = frozenset(("string", "object", "array"))


def kinds_of(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The JSON types that a schema accepts; string, object and array if it doesn't restrict them."""
    if not isinstance(schema, Mapping) or depth > 20:
        return _ANY_KIND
    kinds = schema.get("type")
    if isinstance(kinds, str | list):
        return frozenset([kinds] if isinstance(kinds, str) else kinds)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return frozenset(_kind(value) for value in values)
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return kinds_of(root.get("$defs", {}).get(reference.rpartition("/")[2]), root, depth + 1)
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if isinstance(branches, list):
        return frozenset(kind for branch in branches for kind in kinds_of(branch, root, depth + 1))
    return _ANY_KIND


def _python_value(text: str) -> Any:
    """A list or dict as Python writes it, which is how some templates show one; None for any other text."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, list | dict) else None


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _typed(text: str, kinds: frozenset[str]) -> Any:
    if "string" in kinds and not kinds & {"object", "array"}:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _python_value(text) if kinds & {"object", "array"} else None
    if value is None and "null" not in kinds:
        return text
    kind = _kind(value)
    fits = kind in kinds or (kind == "integer" and "number" in kinds)
    return value if fits and not isinstance(value, str) else text
