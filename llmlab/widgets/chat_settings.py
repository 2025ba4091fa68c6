"""Validates a chat's settings from the page or a caller, and converts them to arguments of `Model.stream`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmlab.errors import BadInputError
from llmlab.types import SamplingParams


def checked(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The non-empty sampling settings, validated; errors name the setting."""
    given = {key: value for key, value in sampling.items() if value not in (None, "", [], ())}
    params = SamplingParams.of(given)
    return {key: _plain(getattr(params, key)) for key in given}


def _plain(value: Any) -> Any:
    """A value as JSON has it: a list for a tuple, and text for a token id that is a key."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def parsed_schema(text: str) -> dict[str, Any]:
    """Parse a typed JSON schema."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadInputError(f"The schema isn't JSON: {error}.", 'For example {"type": "object"}.') from None
    if not isinstance(value, dict):
        raise BadInputError("The schema must be a JSON object.", 'For example {"type": "object"}.')
    return value


def schema_dict(schema: Any) -> dict[str, Any]:
    """A JSON schema as text, from a dict or a pydantic model."""
    if isinstance(schema, Mapping):
        return dict(schema)
    if hasattr(schema, "model_json_schema"):
        return dict(schema.model_json_schema())
    raise BadInputError(f"A schema must be a dict, JSON text or a pydantic model, got {type(schema).__name__}.")
