"""The entry point for all constraints: takes at most one, validates it, and returns a `Guide`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmlab.errors import BadInputError
from llmlab.guided.guide import Guide

UNBOUNDED = "llmlab: unbounded"
"""Marks a type (in `Annotated`) whose values have no limits but its own. See `llmlab.guided.unbounded`."""


def make(
    schema: object = None,
    type: object = None,  # noqa: A002 - the public keyword
    regex: str | None = None,
    choice: Iterable[object] | None = None,
    grammar: str | None = None,
    *,
    bounded: bool = True,
) -> Guide | None:
    """Make the guide of a request.

    Args:
        schema: a JSON schema (a dict or JSON text), a pydantic model, a dataclass or a TypedDict.
        type: a Python type: int, float, bool, str, Literal, Enum, list[...], dates, unions, outlines terms. A number
            has at most 24 digits, a text 1,000 characters and a list 100 items, unless the type sets other limits
            (`Annotated[list[str], Field(max_length=5)]`) or is `llmlab.guided.unbounded(...)`.
        regex: a regex that must match the entire text.
        choice: texts, one of which is the answer.
        grammar: a Lark grammar with a rule `start`, or GBNF (EBNF with `::=`) with a rule `root`.
        bounded: refuse a regex with unlimited repeats (they are allowed if the request sets `max_tokens`).

    Returns:
        The guide; None if no constraint was given.

    Raises:
        BadInputError: the constraint is invalid, empty or unsatisfiable, or more than one was given.
        UnsupportedError: it uses a feature that token masks can't enforce; the keyword and its location are named.

    Example:
        >>> guide = llmlab.guided.make(choice=["yes", "no"])
        >>> guide.kind, model.generate("Is 3 odd?", guide=guide, temperature=0).text
        ('choice', 'no')
    """
    asked = {"schema": schema, "type": type, "regex": regex, "choice": choice, "grammar": grammar}
    given = [name for name, value in asked.items() if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise BadInputError(
            f"{' and '.join(given)} can't be combined: a request takes one constraint.", "Leave one out."
        )
    if schema is not None:
        return _schema(schema)
    if type is not None:
        from llmlab.guided.pytypes import type_guide

        return type_guide(type)
    from llmlab.guided.grammar import choice_guide, grammar_guide, regex_guide

    if regex is not None:
        return regex_guide(regex, bounded=bounded)
    return choice_guide(choice) if choice is not None else grammar_guide(grammar or "")


def _schema(schema: Any) -> Guide:
    from llmlab.guided.schema import schema_guide

    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise BadInputError(
                f"The schema text isn't valid JSON: {error}.", "Pass a dict, or valid JSON text."
            ) from None
    if isinstance(schema, Mapping):
        return schema_guide(dict(schema))
    if isinstance(schema, bool | list | int | float):
        return schema_guide(schema)
    from llmlab.guided.pytypes import structured_guide, type_guide

    if dataclasses.is_dataclass(schema) and not isinstance(schema, type):
        raise BadInputError(f"schema= takes a dataclass, got an instance: {schema!r:.60}.", "Pass the class.")
    return type_guide(schema) if _is_term(schema) else structured_guide(schema)


def _is_term(schema: Any) -> bool:
    return str(schema.__class__.__module__).startswith("outlines.")
