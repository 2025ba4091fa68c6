"""Python types as constraints: outlines provides the type language, pydantic parses the answer."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import re
import sys
import types as python
import typing
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions

from llmlab.errors import BadInputError
from llmlab.guided.constraints import UNBOUNDED
from llmlab.guided.formats import DATE
from llmlab.guided.grammar import choice_guide, grammar_guide, regex_guide
from llmlab.guided.guide import Guide
from llmlab.guided.schema import schema_guide
from llmlab.guided.walk import change

_SUPPORTED = (
    "type= takes int, float, bool, str, Literal, Enum, list[...], dict[str, ...], dates, unions, pydantic models, "
    "dataclasses, TypedDicts and outlines' terms."
)


MAX_DIGITS, MAX_LENGTH, MAX_ITEMS = 24, 1000, 100
"""Limits of values of a type that sets none: the digits of a number, the characters of a text, the items of a list.

Without them a confused model repeats itself until max_tokens.
"""
_INT = rf"[+-]?(0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})"
_FLOAT = rf"{_INT}(\.[0-9]{{1,{MAX_DIGITS}}})?([eE][+-]?[0-9]{{1,3}})?"


def type_guide(kind: Any) -> Guide:
    """Make a guide for a type; `parsed` is a value of it.

    Numbers, bools, dates, Literals, Enums and unions of them are written as plain text; structured types as JSON.
    Numbers, texts and lists are limited (`MAX_DIGITS`, ...) unless the type is `unbounded` or has limits of its own.

    Raises:
        BadInputError: the type isn't supported.
    """
    from outlines.types.dsl import CFG, JsonSchema, Term

    limited = UNBOUNDED not in getattr(kind, "__metadata__", ())
    if not limited:
        kind = kind.__origin__
    name = type_name(kind)
    if isinstance(kind, JsonSchema):
        return schema_guide(json.loads(kind.schema), name=name)
    if isinstance(kind, CFG):
        return grammar_guide(kind.definition, name=name)
    if isinstance(kind, Term):
        return _term_guide(kind, name, str)
    if kind is None or kind is type(None) or isinstance(kind, str | int | float | list | tuple | dict):
        raise BadInputError(f"type= takes a Python type, got {kind!r:.80}.", _SUPPORTED)
    plain = _plain_types(kind, limited=limited)
    if plain is not None:
        return _plain_guide(plain, name)
    return structured_guide(kind, limited=limited)


def type_name(kind: Any) -> str:
    """A type's name for messages."""
    return getattr(kind, "__name__", None) if isinstance(kind, type) else str(kind).replace("typing.", "")  # type: ignore[return-value]


def structured_guide(kind: Any, *, limited: bool | None = None) -> Guide:
    """Make a guide for a type whose values are written as JSON: a model, a dataclass, a TypedDict, a list, ...

    Objects take only the properties of the type; those without a default are required.

    Args:
        kind: the type.
        limited: True limits texts and lists that have no limit of their own, False lifts the limit on digits.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(readable(kind))
        schema = adapter.json_schema(schema_generator=json_schemas())
    except (PydanticUserError, TypeError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(f"{type_name(kind)} can't be written as JSON: {reason}", _SUPPORTED) from None
    schema = change(schema, _tidy)
    if limited:
        schema = change(schema, _limited)
    elif limited is False:
        schema = {**schema, "x-guidance": {"max_digits": 0}}
    return schema_guide(schema, name=type_name(kind), convert=adapter.validate_json)


@functools.cache
def json_schemas() -> Any:
    """Pydantic's JSON schema generator, changed where a token mask can't follow its schemas.

    A Decimal is a number (pydantic also allows text), a set is an array without `uniqueItems` (duplicates disappear in
    the set), and a dict keyed by an Enum or Literal of texts has those as optional properties.
    """
    from pydantic.json_schema import GenerateJsonSchema

    class Schemas(GenerateJsonSchema):
        def decimal_schema(self, schema: Any) -> Any:
            made = super().decimal_schema(schema)
            return next((one for one in made.get("anyOf", ()) if one.get("type") == "number"), made)

        def set_schema(self, schema: Any) -> Any:
            return {key: value for key, value in super().set_schema(schema).items() if key != "uniqueItems"}

        def frozenset_schema(self, schema: Any) -> Any:
            return {key: value for key, value in super().frozenset_schema(schema).items() if key != "uniqueItems"}

        def dict_schema(self, schema: Any) -> Any:
            made = super().dict_schema(schema)
            keys = schema.get("keys_schema", {})
            named = [getattr(one, "value", one) for one in keys.get("members") or keys.get("expected") or ()]
            if "propertyNames" not in made or not named or not all(isinstance(name, str) for name in named):
                return made
            value = made.get("additionalProperties", True)
            rest = {key: one for key, one in made.items() if key not in ("propertyNames", "additionalProperties")}
            return {**rest, "properties": dict.fromkeys(named, value), "additionalProperties": False}

    return Schemas


def readable(kind: Any) -> Any:
    """Replace every `typing.TypedDict` in a type with one of typing_extensions, which pydantic needs before 3.12."""
    if sys.version_info >= (3, 12):
        return kind
    if typing.is_typeddict(kind) and type(kind).__module__ == "typing":
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = {
            name: typing.Required[readable(hint)]
            if name in kind.__required_keys__
            else typing.NotRequired[readable(hint)]
            for name, hint in hints.items()
        }
        return typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[operator]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is None or origin is Literal or not parts:
        return kind
    read = tuple(part if isinstance(part, list) else readable(part) for part in parts)
    if read == parts:
        return kind
    if origin in (Union, python.UnionType):
        return Union[read]  # noqa: UP007 - built from a tuple
    return typing.Annotated[read] if origin is typing.Annotated else origin[read]


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """Rewrite what a mask can't follow in pydantic's schemas, and close their objects."""
    node = {key: value for key, value in node.items() if key not in ("default", "discriminator")}
    if "properties" in node and "additionalProperties" not in node:
        node["additionalProperties"] = False
    if "oneOf" in node and _is_tagged_union(node["oneOf"]):
        node["anyOf"] = node.pop("oneOf")
    return node


def _limited(node: dict[str, Any]) -> dict[str, Any]:
    """Limit a text or a list that has no limit of its own."""
    if node.get("type") == "string" and not node.keys() & {"maxLength", "enum", "const", "pattern", "format"}:
        return {**node, "maxLength": max(MAX_LENGTH, node.get("minLength", 0))}
    if node.get("type") == "array" and not node.keys() & {"maxItems", "prefixItems", "const", "enum"}:
        return {**node, "maxItems": max(MAX_ITEMS, node.get("minItems", 0))}
    return node


def _is_tagged_union(branches: Any) -> bool:
    """Whether all branches are references: they come from a tagged union, whose tags are mutually exclusive."""
    return isinstance(branches, list) and all(isinstance(one, dict) and "$ref" in one for one in branches)


# -- plain values -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Plain:
    """One kind of plain value: the term that its text matches, and the conversion from text to value."""

    term: Any
    convert: Callable[[str], Any]


def _plain_types(kind: Any, *, limited: bool = True) -> list[_Plain] | None:
    """The plain types that make up a type, or None if it needs JSON; `limited`: with limited numbers."""
    from outlines.types.dsl import Regex, String, python_types_to_terms

    if get_origin(kind) in (Union, python.UnionType):
        parts = [_plain_types(part, limited=limited) if part is not type(None) else _none() for part in get_args(kind)]
        return None if any(part is None for part in parts) else [one for part in parts for one in part or ()]
    if kind is bool:
        return [_Plain(python_types_to_terms(bool), lambda text: text == "True")]
    if kind in (int, float):
        pattern = Regex(_INT if kind is int else _FLOAT)
        return [_Plain(pattern if limited else python_types_to_terms(kind), kind)]
    if kind is datetime.date:
        # outlines' own pattern allows February 31.
        return [_Plain(Regex(DATE), datetime.date.fromisoformat)]
    if kind is datetime.time:
        return [_Plain(python_types_to_terms(kind), datetime.time.fromisoformat)]
    if kind is datetime.datetime:
        clock = python_types_to_terms(datetime.time).pattern
        return [_Plain(Regex(f"{DATE}[T ]{clock}"), datetime.datetime.fromisoformat)]
    values: list[Any] | None = None
    if get_origin(kind) is Literal:
        values = list(_literals(kind))
    elif isinstance(kind, enum.EnumMeta):
        values = list(kind)
        if not values:
            raise BadInputError(f"The Enum {kind.__name__} has no members.", "Add one.")
    if values is None:
        return None
    texts = [(str(v.value if isinstance(v, enum.Enum) else v), v) for v in values]
    if any(not text for text, _ in texts):
        return None
    return [_Plain(String(text), _constant(value)) for text, value in texts]


def _literals(kind: Any) -> typing.Iterator[Any]:
    for value in get_args(kind):
        yield from _literals(value) if get_origin(value) is Literal else (value,)


def _constant(value: Any) -> Callable[[str], Any]:
    return lambda _text: value


def _none() -> list[_Plain]:
    from outlines.types.dsl import String

    return [_Plain(String("None"), lambda _text: None)]


def _plain_guide(parts: list[_Plain], name: str) -> Guide:
    from outlines.types.dsl import Alternatives, String, to_regex

    if all(isinstance(part.term, String) for part in parts):
        by_text = {part.term.value: part for part in reversed(parts)}
        guide = choice_guide(dict.fromkeys(part.term.value for part in parts), name=name)
        return dataclasses.replace(guide, convert=lambda text: by_text[text].convert(text))
    patterns = [(re.compile(to_regex(part.term)), part.convert) for part in parts]

    def convert(text: str) -> Any:
        return next(to_value(text) for pattern, to_value in patterns if pattern.fullmatch(text))

    return _term_guide(parts[0].term if len(parts) == 1 else Alternatives([p.term for p in parts]), name, convert)


def _term_guide(term: Any, name: str, convert: Callable[[str], Any]) -> Guide:
    from outlines.types.dsl import to_regex

    try:
        pattern = to_regex(term)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BadInputError(f"The term {term!r:.80} isn't regular: {error}.", _SUPPORTED) from None
    return regex_guide(pattern, name=name, convert=convert, bounded=False)
