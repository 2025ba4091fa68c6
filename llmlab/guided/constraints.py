"""One door for all constraints: at most one is given, and what comes out was checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmlab.errors import BadInputError
from llmlab.guided.guide import Guide


def make(
    schema: object = None,
    type: object = None,  # noqa: A002 - the word that users write
    regex: str | None = None,
    choice: Iterable[object] | None = None,
    grammar: str | None = None,
    *,
    bounded: bool = True,
) -> Guide | None:
    """Make the guide of a request.

    Args:
        schema: a JSON schema (a dict, or its JSON text), a pydantic model, a dataclass, a TypedDict.
        type: a Python type: int, float, bool, str, Literal, Enum, list[...], dates, unions, outlines' terms.
        regex: a regex that the whole text matches.
        choice: texts, one of which is the answer.
        grammar: a Lark grammar with a rule `start`, or GBNF (EBNF with `::=`) with a rule `root`.
        bounded: refuse a regex that has no longest match (a request with a `max_tokens` of its own may have one).

    Returns:
        The guide; None when no constraint was given.

    Raises:
        BadInputError: the constraint can't be used: invalid, empty, unsatisfiable, or two at once.
        UnsupportedError: it asks for what no mask can follow, with the keyword and its place.

    Example:
        >>> guide = llmlab.guided.constraints(choice=["yes", "no"])
        >>> guide.kind, model.generate("Is 3 odd?", guide=guide, temperature=0).text
        ('choice', 'no')
    """
    asked = {"schema": schema, "type": type, "regex": regex, "choice": choice, "grammar": grammar}
    given = [name for name, value in asked.items() if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise BadInputError(f"{' and '.join(given)} were given, and a text follows one constraint.", "Leave one out.")
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
            raise BadInputError(f"The schema's text isn't JSON: {error}.", "Give a dict, or its JSON text.") from None
    if isinstance(schema, Mapping):
        return schema_guide(dict(schema))
    if isinstance(schema, bool | list | int | float):
        return schema_guide(schema)
    from llmlab.guided.pytypes import structured_guide, type_guide

    if dataclasses.is_dataclass(schema) and not isinstance(schema, type):
        raise BadInputError(
            f"schema= takes the dataclass itself, got one of its values: {schema!r:.60}.", "Give the class."
        )
    return type_guide(schema) if _is_term(schema) else structured_guide(schema)


def _is_term(schema: Any) -> bool:
    return str(schema.__class__.__module__).startswith("outlines.")
