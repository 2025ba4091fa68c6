"""JSON schemas: checked, brought into the form that the masks take, judged by the jsonschema library."""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Callable
from typing import Any

from llmlab.errors import BadInputError, LlmLabError, UnsupportedError
from llmlab.guided.ecma import EcmaError, EcmaUnsupportedError, translated, with_patterns
from llmlab.guided.formats import KNOWN, REPLACED, TIGHTER
from llmlab.guided.guide import Guide
from llmlab.guided.numbers import BoundError, bounded, exact, negative_multiples, unwritable
from llmlab.guided.walk import change, circular, endless, everything, quote, resolve, without_silent

# JSON on one line, with or without a blank after a comma or colon. The library's own gaps have no end, and a model that
# is at a loss fills its whole budget with blanks.
GAPS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
MAX_NESTING = 100
# A float has up to 767 digits, and up to 324 places after the point.
_DIGITS = 2000
_CHOOSERS = ("$ref", "allOf", "anyOf", "oneOf", "type", "enum", "const")


def schema_guide(schema: Any, *, name: str = "", convert: Callable[[str], Any] = json.loads) -> Guide:
    """Make a guide of a JSON schema.

    Args:
        schema: the schema, a dict or a bool (JSON has no other).
        name: what to call it; default: its title.
        convert: from a valid JSON text to the typed object.

    Raises:
        BadInputError: it isn't a valid schema (with the place), or no text satisfies it.
        UnsupportedError: a keyword that can't be followed, with its place.
    """
    given = _plain(schema)
    schema = _known_dialect(given)
    patterns: dict[str, str] = {}
    validator = _validator(schema, patterns)
    _check_references(schema)
    ring = circular(schema)
    if ring is not None:
        raise BadInputError(
            f"$ref {ring!r} leads back to itself on the spot, so it says nothing.",
            "A recursive schema must go through properties or items on its way.",
        )
    loop = endless(schema)
    if loop is not None:
        raise BadInputError(
            f"No text satisfies the schema: what {loop!r} refers to always contains itself, without end.",
            "Make one property on the way optional, or allow null: anyOf [..., {'type': 'null'}].",
        )
    text = _normal(schema)
    refused = _refusal(text)
    if refused:
        raise _explain(schema, refused)

    def check(answer: str) -> None:
        value = json.loads(answer, parse_float=exact)
        with decimal.localcontext(prec=_DIGITS):
            try:
                errors = sorted(validator.iter_errors(value), key=lambda e: len(e.absolute_path))
            except decimal.DecimalException:
                raise ValueError(f"a number has more than {_DIGITS:,} digits") from None
        # The most telling error, as jsonschema ranks them.
        found = next(iter(errors), None)
        if found is not None:
            where = "".join(f"/{step}" for step in found.absolute_path)
            said = found.message
            if found.validator == "pattern":
                said = f"{found.instance!r} does not match {patterns.get(found.validator_value)!r}"
            said = re.sub(r"Decimal\('([^']*)'\)", r"\1", said)
            raise ValueError(f"{said} (at {where or 'the top'})")

    title = schema.get("title") if isinstance(schema, dict) else None
    return Guide("json", text, name or (title if isinstance(title, str) else "") or "schema", given, check, convert)


def _plain(schema: Any) -> Any:
    """The schema as JSON has it (tuples as lists, keys as text).

    Raises:
        BadInputError: it holds something that JSON doesn't have.
    """
    if not isinstance(schema, dict | bool):
        raise BadInputError(
            f"A JSON schema must be a dict (or true or false), got {type(schema).__name__}.",
            'For example {"type": "object", "properties": {"age": {"type": "integer"}}}.',
        )
    try:
        return json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInputError(f"The schema can't be written as JSON: {error}.") from None


def _known_dialect(schema: Any) -> Any:
    """The schema under the usual name of its dialect: http or https, # or not, "the newest", draft 5."""
    declared = schema.get("$schema") if isinstance(schema, dict) else None
    if not isinstance(declared, str):
        return schema
    plain = re.sub(r"^https?://json-schema\.org/", "", declared.strip()).rstrip("#").rstrip("/")
    if plain == declared.strip():
        return schema
    draft = re.fullmatch(r"draft-0?([3-7])/(?:hyper-)?schema", plain)
    if draft:
        number = "4" if draft[1] == "5" else draft[1]
        return {**schema, "$schema": f"http://json-schema.org/draft-0{number}/schema#"}
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"} if plain == "schema" else schema


def _validator(schema: Any, patterns: dict[str, str]) -> Any:
    """The schema's validator; `patterns` gets the regex in the schema behind each that the validator reads."""
    import jsonschema

    declared = schema.get("$schema") if isinstance(schema, dict) else None
    kind = jsonschema.validators.validator_for(schema, default=None)
    if kind is None and isinstance(declared, str):
        raise BadInputError(
            f"Unknown JSON schema dialect {declared!r} (at /$schema).",
            "Leave $schema out, or name one that is known: https://json-schema.org/draft/2020-12/schema.",
        )
    kind = kind or jsonschema.Draft202012Validator
    # Its format "regex" means Python's.
    forms = jsonschema.FormatChecker(())
    forms.checkers = {name: one for name, one in kind.FORMAT_CHECKER.checkers.items() if name != "regex"}
    try:
        kind.check_schema(schema, format_checker=forms)
    except jsonschema.SchemaError as error:
        error = _deepest(error)
        place = "".join(f"/{step}" for step in error.absolute_path) or "the top"
        raise BadInputError(f"The schema isn't valid at {place}: {error.message:.200}.") from None
    except RecursionError:
        raise BadInputError(f"The schema is nested more than {MAX_NESTING} deep.") from None
    if _depth(schema) > MAX_NESTING:
        raise BadInputError(f"The schema is nested more than {MAX_NESTING} deep.", "Use $defs and $ref.")
    for pointer, node in everything(schema):
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("pattern"), str):
            _check_pattern(node["pattern"], pointer, "pattern")
        for key in node["patternProperties"] if isinstance(node.get("patternProperties"), dict) else ():
            _check_pattern(key, pointer, "patternProperties")
        if node.get("enum") == []:
            raise BadInputError(f"No text satisfies the schema at {pointer or 'the top'}: its enum is empty.")
        try:
            negative_multiples(node)
        except ValueError as error:
            raise UnsupportedError(
                f"The keyword 'multipleOf' at {pointer}/multipleOf can't be followed token by token: {error}.",
                "Give a nearer minimum, or leave it out and check it on completion.parsed.",
            ) from None
        for key in ("const", "enum"):
            odd = unwritable(node.get(key))
            if odd is not None:
                raise UnsupportedError(
                    f"The keyword {key!r} at {pointer}/{key} can't be followed token by token: {odd!r:.40} has more "
                    "digits than a float.",
                    "Give the number as text.",
                )
        try:
            bounded(node)
        except BoundError as error:
            key = error.keyword
            raise UnsupportedError(
                f"The keyword {key!r} at {pointer}/{key} can't be followed token by token: {error}.",
                "Loosen it, or leave it out and check it on completion.parsed.",
            ) from None
    # As floats, 0.07 is no multiple of 0.01.
    readable = json.loads(json.dumps(schema), parse_float=exact)
    readable = change(readable, lambda node: with_patterns(node, 1, patterns))
    return kind(readable, format_checker=kind.FORMAT_CHECKER)


def _check_pattern(pattern: str, pointer: str, keyword: str) -> None:
    """Refuse a pattern that isn't a regex of ECMA-262, or that no mask can follow."""
    try:
        translated(pattern)
    except EcmaUnsupportedError as error:
        raise UnsupportedError(
            f"The keyword {keyword!r} at {pointer}/{keyword} can't be followed token by token: {error}.",
            f"Say {pattern!r:.120} without, or leave it out of the schema and check it on completion.parsed.",
        ) from None
    except EcmaError as error:
        raise BadInputError(
            f"The pattern {pattern!r:.120} at {pointer}/{keyword} isn't a valid regex of ECMA-262: {error}."
        ) from None


def _deepest(error: Any) -> Any:
    """The innermost reason of a schema error: anyOf and the like hide it."""
    while error.context:
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    return error


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level and depth <= MAX_NESTING + 1:
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1
    return depth


def _check_references(schema: Any) -> None:
    named = any(isinstance(n, dict) and ("$id" in n or "$anchor" in n) for _, n in everything(schema))
    for pointer, node in everything(schema):
        reference = node.get("$ref") if isinstance(node, dict) else None
        if not isinstance(reference, str):
            continue
        if not reference.startswith("#") and not named:
            raise UnsupportedError(
                f"$ref {reference!r} at {pointer or ''}/$ref points outside the schema, and nothing is fetched.",
                "Copy what it points to into $defs, and refer to it as '#/$defs/NAME'.",
            )
        if reference == "#" or reference.startswith("#/"):
            try:
                resolve(schema, reference)
            except (LookupError, ValueError, TypeError):
                raise BadInputError(f"$ref {reference!r} at {pointer}/$ref points to nothing in the schema.") from None


# -- the form that the masks take ---------------------------------------------------------------


def _normal(schema: Any) -> str:
    """The schema as text for the mask library: formats as the judge has them, blanks bounded."""
    from jsonschema import FormatChecker

    judged = FormatChecker.checkers
    hopeless: dict[str, bool] = {}

    def edit(node: dict[str, Any]) -> Any:
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference not in hopeless:
                hopeless[reference] = reference != "#" and endless(schema, reference) is not None
            if hopeless[reference]:
                # Nothing finite is there: the library would follow the reference, and find no way on.
                return False
        node = without_silent(with_patterns(node, 0, {}))
        if isinstance(reference, str) and reference.startswith("#"):
            node["$ref"] = quote(node["$ref"])
        values = negative_multiples(node)
        if values is not None:
            return {"enum": values}
        node = bounded(node)
        form = node.get("format")
        if isinstance(form, str):
            if form in REPLACED:
                return _with_pattern({k: v for k, v in node.items() if k != "format"}, REPLACED[form], node)
            if form in TIGHTER:
                return _with_pattern(node, TIGHTER[form], node)
            if form not in KNOWN and form not in judged:
                # Says nothing: JSON Schema treats an unknown format as a remark (int32, password, ...).
                return {k: v for k, v in node.items() if k != "format"}
        return node

    out = change(schema, edit) if isinstance(schema, dict) else schema
    if out is True:
        out = {}
    if isinstance(out, dict):
        own = out.get("x-guidance")
        out = {**out, "x-guidance": {**GAPS, **(own if isinstance(own, dict) else {})}}
    return json.dumps(out, ensure_ascii=False)


def _with_pattern(node: dict[str, Any], pattern: str, original: dict[str, Any]) -> dict[str, Any]:
    """A copy of a subschema whose strings match a pattern besides what it says."""
    whole = f"^({pattern})$"
    if "pattern" not in original:
        return {**node, "pattern": whole}
    return {**node, "allOf": [*(node.get("allOf") or ()), {"type": "string", "pattern": whole}]}


# -- what is refused, and where -----------------------------------------------------------------


def _refusal(text: str) -> str:
    """What the mask library has against a normalised schema; "" when it can follow it."""
    from llguidance import LLMatcher

    try:
        grammar = LLMatcher.grammar_from_json_schema(text)
    except ValueError as error:
        return str(error)
    failed, said = LLMatcher.validate_grammar_with_warnings(grammar)
    return said[0] if failed and said else ""


def _explain(schema: Any, said: str) -> LlmLabError:
    """The error for a schema that was refused, with the keyword and its JSON pointer."""
    place, said = _locate(schema, said)
    said = " ".join(said.split())[:240]
    at = place or "the top"
    if said.startswith("Unsatisfiable schema"):
        reason = said.partition(": ")[2]
        return BadInputError(
            f"No text satisfies the schema at {at}: {reason}.", "Loosen one of the bounds that exclude each other."
        )
    keyword = _keyword(schema, place, said)
    if "min/maxProperties" in said:
        # Branches are merged before it is noticed: the keyword may stand in one of them.
        counted = [
            (pointer, key)
            for pointer, node in everything(schema)
            for key in ("minProperties", "maxProperties")
            if isinstance(node, dict) and key in node
        ]
        below = [one for one in counted if (one[0] + "/").startswith(place + "/")]
        place, keyword = (below or counted or [(place, keyword)])[0]
    return UnsupportedError(
        f"The keyword {keyword!r} at {place}/{keyword} can't be followed token by token: {said}.",
        "Leave it out of the schema, and check it on completion.parsed.",
    )


def _locate(schema: Any, said: str) -> tuple[str, str]:
    """The innermost subschema that is refused on its own, and what is said of it."""
    if not isinstance(schema, dict):
        return "", said
    moved = _moved(schema)
    best = ("", said)
    for pointer, node in everything(schema):
        if not pointer or not isinstance(node, dict) or not (pointer + "/").startswith(best[0] + "/"):
            continue
        there = with_patterns({"$ref": "#/x-root" + pointer.replace("%", "%25")}, 0, {})
        document = {"x-root": moved, "$ref": quote(there["$ref"])}
        if "$schema" in schema:
            document["$schema"] = schema["$schema"]
        refused = _refusal(_normal_below(document))
        if refused:
            best = (pointer, refused)
    return best


def _normal_below(document: dict[str, Any]) -> str:
    inner = json.loads(_normal(document["x-root"]))
    return json.dumps({**document, "x-root": inner}, ensure_ascii=False)


def _moved(schema: Any) -> Any:
    """The schema with its own references pointing below "/x-root"."""

    def edit(node: dict[str, Any]) -> Any:
        reference = node.get("$ref")
        node = {k: v for k, v in node.items() if k not in ("$schema", "$id")}
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            node["$ref"] = "#/x-root" + reference[1:]
        return node

    return change(schema, edit)


def _keyword(schema: Any, place: str, said: str) -> str:
    node = resolve(schema, "#" + place.replace("%", "%25")) if place else schema
    keys = list(node) if isinstance(node, dict) else []
    named = re.search(r"Unimplemented keys: (\[.*?\])", said)
    if named:
        return str(json.loads(named[1])[0])
    if "format" in said and "format" in keys:
        return "format"
    if "oneOf" in said:
        return "oneOf"
    blamed = [key for key in ("pattern", "patternProperties") if key in keys]
    if blamed and ("regex" in said.lower() or "lookaround" in said):
        return blamed[0]
    if "Pointer" in said or "Resource" in said or "ref" in said:
        return "$ref"
    mentioned = [key for key in keys if key in said]
    return str((mentioned or [key for key in _CHOOSERS if key in keys] or keys or ["$schema"])[0])
