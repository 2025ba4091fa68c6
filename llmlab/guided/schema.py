"""Guides for JSON schemas: validated, normalised for the token masks; answers are validated by jsonschema."""

from __future__ import annotations

import decimal
import difflib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin

from llmlab import _imports
from llmlab.errors import BadInputError, LlmLabError, UnsupportedError
from llmlab.guided.ecma import EcmaError, EcmaUnsupportedError, translated, with_patterns
from llmlab.guided.formats import KNOWN, REPLACED, TIGHTER
from llmlab.guided.guide import Guide, Violation
from llmlab.guided.keys import any_order, together, unordered
from llmlab.guided.numbers import BoundError, all_spellings, bounded, exact, signed_multiples, unwritable
from llmlab.guided.relaxation import relaxed, with_few_keys
from llmlab.guided.scan import digit_limit
from llmlab.guided.walk import (
    change,
    children,
    circular,
    endless,
    everything,
    impossible,
    quote,
    resolve,
    without_silent,
)

# JSON on one line, with or without a space after a comma or colon. The library's default allows unlimited whitespace,
# and a confused model fills its entire budget with it.
GAPS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
MAX_NESTING = 100
# A float has up to 767 significant digits, and exponents down to -324.
_DIGITS = 2000
# How often a subschema is reduced to its type before the schema is refused.
_MOST_LOOSENED = 8
# Characters that the mask library reads at most while the refused part of a schema is looked for: about 1 s per 10 MB.
_MOST_SEARCHED = 20_000_000
_OWN = ("max_digits", "strict_formats", "key_order")
_KEPT = ("type", "$schema", "$id", "$defs", "definitions", "x-guidance", "title", "description")
_CHOOSERS = ("$ref", "allOf", "anyOf", "oneOf", "type", "enum", "const")


def schema_guide(schema: Any, *, name: str = "", convert: Callable[[str], Any] = json.loads) -> Guide:
    """Make a guide for a JSON schema.

    Args:
        schema: the schema, a dict or a bool.
        name: a name for messages; default: its title.
        convert: valid JSON text -> typed object.

    Raises:
        BadInputError: the schema is invalid (with the location), or no text satisfies it.
        UnsupportedError: a keyword can't be enforced (with its location).
    """
    _imports.load("jsonschema")
    given = _plain(schema)
    schema = _known_dialect(given)
    patterns: dict[str, str] = {}
    validator = _validator(schema, patterns)
    _check_formats(schema)
    _check_references(schema)
    ring = circular(schema)
    if ring is not None:
        raise BadInputError(
            f"$ref {ring!r} refers directly back to itself, so it has no meaning.",
            "A recursive schema must recurse through properties or items.",
        )
    if impossible(schema):
        raise BadInputError("No text satisfies the schema: it requires `false`, which nothing satisfies.")
    loop = endless(schema)
    if loop is not None:
        raise BadInputError(
            f"No text satisfies the schema: {loop!r} always contains itself, without end.",
            "Make one property in the cycle optional, or allow null: anyOf [..., {'type': 'null'}].",
        )
    free = any_order(schema)
    text, checked = _enforceable(schema)
    looser, unchecked = unordered(text) if free else ("", ())
    if looser and not _refusal(looser):
        text, checked = looser, tuple(dict.fromkeys((*checked, *unchecked)))

    def check(answer: str) -> None:
        value = json.loads(answer, parse_float=exact, object_pairs_hook=_once)
        with decimal.localcontext(prec=_DIGITS):
            try:
                errors = sorted(validator.iter_errors(value), key=lambda e: len(e.absolute_path))
            except decimal.DecimalException:
                raise ValueError(f"a number has more than {_DIGITS:,} digits") from None
        # Report the outermost error.
        found = next(iter(errors), None)
        if found is not None:
            where = "".join(f"/{step}" for step in found.absolute_path)
            message = found.message
            if found.validator == "pattern":
                message = f"{found.instance!r} does not match {patterns.get(found.validator_value)!r}"
            message = re.sub(r"Decimal\('([^']*)'\)", r"\1", message)
            path = tuple(found.absolute_path)
            if found.validator == "uniqueItems":
                path = (*path, _second(found.instance))
            raise Violation(f"{message} (at {where or 'the top level'})", path)

    title = schema.get("title") if isinstance(schema, dict) else None
    name = name or (title if isinstance(title, str) else "") or "schema"
    return Guide("json", text, name, given, check, convert, checked, digit_limit(given))


def _second(items: list[Any]) -> int:
    """The index of the first item that equals an earlier one."""
    texts = [json.dumps(item, sort_keys=True, default=str) for item in items]
    same = (i for i, text in enumerate(texts) if text in texts[:i])
    return next(same, len(items) - 1)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.60} is repeated")
    return made


def _plain(schema: Any) -> Any:
    """The schema as plain JSON (tuples as lists, keys as text).

    Raises:
        BadInputError: it contains a value that JSON can't represent.
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
    """The schema with its dialect's canonical URI: http or https, with or without #, "newest", draft 5."""
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
    """The schema's validator; fills `patterns` with translated regex -> the schema's regex."""
    import jsonschema

    declared = schema.get("$schema") if isinstance(schema, dict) else None
    kind = jsonschema.validators.validator_for(schema, default=None)
    if kind is None and isinstance(declared, str):
        raise BadInputError(
            f"Unknown JSON schema dialect {declared!r} (at /$schema).",
            "Leave $schema out, or use a known one: https://json-schema.org/draft/2020-12/schema.",
        )
    kind = kind or jsonschema.Draft202012Validator
    # jsonschema's format "regex" means Python's dialect, not ECMA-262.
    forms = jsonschema.FormatChecker(())
    forms.checkers = {name: one for name, one in kind.FORMAT_CHECKER.checkers.items() if name != "regex"}
    try:
        kind.check_schema(schema, format_checker=forms)
    except jsonschema.SchemaError as error:
        error = _deepest(error)
        place = "".join(f"/{step}" for step in error.absolute_path) or "the top level"
        raise BadInputError(f"The schema isn't valid at {place}: {error.message:.200}.") from None
    except RecursionError:
        raise BadInputError(f"The schema is nested more than {MAX_NESTING} levels deep.") from None
    if _depth(schema) > MAX_NESTING:
        raise BadInputError(f"The schema is nested more than {MAX_NESTING} levels deep.", "Use $defs and $ref.")
    for pointer, node in everything(schema):
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("pattern"), str):
            _check_pattern(node["pattern"], pointer, "pattern")
        for key in node["patternProperties"] if isinstance(node.get("patternProperties"), dict) else ():
            _check_pattern(key, pointer, "patternProperties")
        if node.get("enum") == []:
            raise BadInputError(f"No text satisfies the schema at {pointer or 'the top level'}: its enum is empty.")
        for key in ("const", "enum"):
            odd = unwritable(node.get(key))
            if odd is not None:
                raise UnsupportedError(
                    f"The keyword {key!r} at {pointer}/{key} can't be enforced token by token: {odd!r:.40} has more "
                    "digits than a float.",
                    "Use a string instead of the number.",
                )
        try:
            bounded(node)
        except BoundError as error:
            key = error.keyword
            raise UnsupportedError(
                f"The keyword {key!r} at {pointer}/{key} can't be enforced token by token: {error}.",
                "Loosen it, or leave it out and check completion.parsed instead.",
            ) from None
    # As floats, 0.07 is not a multiple of 0.01.
    readable = json.loads(json.dumps(schema), parse_float=exact)
    readable = change(readable, lambda node: with_patterns(node, 1, patterns))
    # jsonschema's default registry fetches unknown references from the network.
    from jsonschema_specifications import REGISTRY

    # The masks enforce these formats in any draft.
    newest = jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers
    forms.checkers = {name: one for name, one in newest.items() if name in KNOWN}
    forms.checkers |= kind.FORMAT_CHECKER.checkers
    return kind(readable, format_checker=forms, registry=REGISTRY)


def _check_pattern(pattern: str, pointer: str, keyword: str) -> None:
    """Refuse a pattern that isn't a valid ECMA-262 regex, or that token masks can't enforce."""
    try:
        translated(pattern)
    except EcmaUnsupportedError as error:
        raise UnsupportedError(
            f"The keyword {keyword!r} at {pointer}/{keyword} can't be enforced token by token: {error}.",
            f"Rewrite {pattern!r:.120} without it, or leave it out and check completion.parsed instead.",
        ) from None
    except EcmaError as error:
        raise BadInputError(
            f"The pattern {pattern!r:.120} at {pointer}/{keyword} isn't a valid ECMA-262 regex: {error}."
        ) from None


def _deepest(error: Any) -> Any:
    """The innermost cause of a schema error, which anyOf and the like hide."""
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


def _check_formats(schema: Any) -> None:
    """Refuse unknown formats if the schema says so; the standard makes them annotations."""
    from jsonschema import FormatChecker

    own = schema.get("x-guidance") if isinstance(schema, dict) else None
    if not isinstance(own, dict) or not own.get("strict_formats"):
        return
    known = sorted({*FormatChecker.checkers, *KNOWN})
    for pointer, node in everything(schema):
        form = node.get("format") if isinstance(node, dict) else None
        if isinstance(form, str) and form not in known:
            close = difflib.get_close_matches(form, known, 1)
            raise BadInputError(
                f"Unknown format {form!r} at {pointer}/format.",
                f"Did you mean {close[0]!r}?" if close else f"Known ones: {', '.join(known)}.",
            )


def _check_references(schema: Any) -> None:
    """Refuse references that point to nothing, or outside the schema: nothing is fetched."""
    bases = dict(_bases(schema, "", ""))
    known = set(bases.values())
    for pointer, node in everything(schema):
        if not isinstance(node, dict):
            continue
        for key in ("$ref", "$dynamicRef"):
            reference = node.get(key)
            if not isinstance(reference, str):
                continue
            target = urljoin(bases.get(pointer, ""), reference).partition("#")[0]
            if not reference.startswith("#") and target not in known:
                raise UnsupportedError(
                    f"{key} {reference!r} at {pointer}/{key} points outside the schema; external schemas aren't "
                    "fetched.",
                    "Copy the target into $defs, and refer to it as '#/$defs/NAME'.",
                )
        reference = node.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")) and known == {""}:
            try:
                resolve(schema, reference)
            except (LookupError, ValueError, TypeError):
                raise BadInputError(f"$ref {reference!r} at {pointer}/$ref points to nothing in the schema.") from None


def _bases(node: Any, pointer: str, base: str) -> Iterator[tuple[str, str]]:
    """The base URI of each subschema, by its JSON pointer."""
    own = node.get("$id", node.get("id")) if isinstance(node, dict) else None
    if isinstance(own, str):
        base = urljoin(base, own).partition("#")[0]
    yield pointer, base
    for step, child in children(node):
        yield from _bases(child, pointer + step, base)


# -- what the masks can't express ---------------------------------------------------------------


def _enforceable(schema: Any) -> tuple[str, tuple[str, ...]]:
    """The schema for the mask library, and the JSON pointers of the keywords that it enforces only in part.

    Raises:
        BadInputError: no text satisfies it.
        UnsupportedError: the library refuses it in any form.
    """
    text = _normal(schema)
    refused = _refusal(text)
    unseen = (*with_few_keys(schema), *_with_negatives(schema))
    if not refused:
        return text, unseen
    looser, checked = relaxed(schema)
    effort = _MOST_SEARCHED
    for _ in range(_MOST_LOOSENED):
        text = _normal(looser)
        found = _refusal(text)
        if not found:
            # What is below a checked keyword is checked with it.
            return text, (*checked, *(one for one in unseen if not one.startswith(tuple(f"{up}/" for up in checked))))
        if found.startswith("Unsatisfiable schema"):
            # A looser schema has no text either.
            raise _explain(looser, found)
        place, _, effort = _locate(looser, found, effort)
        looser, dropped = _loosened(looser, place)
        if not dropped or not place:
            break
        checked = (*checked, *(f"{place}/{key}" for key in dropped))
    raise _explain(schema, refused)


def _loosened(schema: Any, place: str) -> tuple[Any, list[str]]:
    """The schema with one subschema reduced to its type, and the keywords dropped from it."""
    if not isinstance(schema, dict):
        return schema, []
    out = json.loads(json.dumps(schema))
    node = resolve(out, "#" + place.replace("%", "%25"))
    if not isinstance(node, dict):
        return schema, []
    dropped = [key for key in node if key not in _KEPT]
    for key in dropped:
        del node[key]
    return out, dropped


# -- normalisation for the mask library ---------------------------------------------------------


def _normal(schema: Any) -> str:
    """The schema as text for the mask library: formats as the validator defines them, whitespace bounded."""
    from jsonschema import FormatChecker

    validated = FormatChecker.checkers
    infinite: dict[str, bool] = {}
    # The first alternative of each split schema; with the schema, since an id is unique only while its object lives.
    split: dict[int, tuple[Any, Any]] = {}

    def edit(node: dict[str, Any]) -> Any:
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference not in infinite:
                infinite[reference] = reference != "#" and endless(schema, reference) is not None
            if infinite[reference]:
                # Only infinite texts match: the library would expand the reference without end.
                return False
        node = together(without_silent(with_patterns(node, 0, {})))
        if isinstance(reference, str) and reference.startswith("#"):
            node["$ref"] = quote(node["$ref"])
        if isinstance(node.get("allOf"), list):
            # The library multiplies alternatives out.
            node["allOf"] = [split[id(one)][1] if id(one) in split else one for one in node["allOf"]]
        parts = _numbers(node)
        if len(parts) > 1:
            both = {"anyOf": parts}
            split[id(both)] = both, parts[0]
            return both
        node = parts[0]
        form = node.get("format")
        if isinstance(form, str) and form in validated and ("const" in node or "enum" in node):
            values = [node["const"]] if "const" in node else node["enum"]
            forms = FormatChecker()
            fine = [one for one in values if not isinstance(one, str) or forms.conforms(one, form)]
            left = {key: value for key, value in node.items() if key not in ("format", "const", "enum")}
            return {**left, "enum": fine} if fine else False
        if isinstance(form, str):
            if form in REPLACED:
                return _with_pattern({k: v for k, v in node.items() if k != "format"}, REPLACED[form], node)
            if form in TIGHTER:
                return _with_pattern(node, TIGHTER[form], node)
            if form not in KNOWN and form not in validated:
                # JSON Schema treats an unknown format as an annotation (int32, password, ...).
                return {k: v for k, v in node.items() if k != "format"}
        return node

    out = change(schema, edit) if isinstance(schema, dict) else schema
    if out is True:
        out = {}
    if isinstance(out, dict):
        own = out.get("x-guidance")
        own = {key: value for key, value in own.items() if key not in _OWN} if isinstance(own, dict) else {}
        out = {**out, "x-guidance": {**GAPS, **own}}
    return json.dumps(out, ensure_ascii=False)


def _numbers(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a subschema whose numbers the mask library writes only in part."""
    parts = []
    for one in signed_multiples(node)[0]:
        try:
            parts += all_spellings(bounded(one))
        except BoundError:
            if one is node:
                raise
    return parts or [node]


def _with_negatives(schema: Any) -> tuple[str, ...]:
    """JSON pointers of the `multipleOf` that the masks don't enforce below 0."""
    return tuple(
        f"{pointer}/multipleOf"
        for pointer, node in everything(schema)
        if isinstance(node, dict) and signed_multiples(node)[1]
    )


def _with_pattern(node: dict[str, Any], pattern: str, original: dict[str, Any]) -> dict[str, Any]:
    """A copy of a subschema whose strings must also match a pattern."""
    full = f"^({pattern})$"
    if "pattern" not in original:
        return {**node, "pattern": full}
    return {**node, "allOf": [*(node.get("allOf") or ()), {"type": "string", "pattern": full}]}


# -- errors -------------------------------------------------------------------------------------


def _refusal(text: str) -> str:
    """Why the mask library refuses a normalised schema; "" if it accepts it."""
    from llguidance import LLMatcher

    try:
        grammar = LLMatcher.grammar_from_json_schema(text)
    except ValueError as error:
        return str(error)
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return messages[0] if failed and messages else ""


def _explain(schema: Any, message: str) -> LlmLabError:
    """The error for a refused schema, with the keyword and its JSON pointer."""
    place, message, _ = _locate(schema, message)
    message = " ".join(message.split())[:240]
    at = place or "the top level"
    if message.startswith("Unsatisfiable schema"):
        reason = message.partition(": ")[2]
        return BadInputError(
            f"No text satisfies the schema at {at}: {reason}.", "Loosen one of the conflicting constraints."
        )
    keyword = _keyword(schema, place, message)
    if "min/maxProperties" in message:
        # The library merges branches before it checks: the keyword may be in one of them.
        counted = [
            (pointer, key)
            for pointer, node in everything(schema)
            for key in ("minProperties", "maxProperties")
            if isinstance(node, dict) and key in node
        ]
        below = [one for one in counted if (one[0] + "/").startswith(place + "/")]
        place, keyword = (below or counted or [(place, keyword)])[0]
    return UnsupportedError(
        f"The keyword {keyword!r} at {place}/{keyword} can't be enforced token by token: {message}.",
        "Leave it out of the schema, and check completion.parsed instead.",
    )


def _locate(schema: Any, message: str, effort: int = _MOST_SEARCHED) -> tuple[str, str, int]:
    """The innermost subschema that is refused on its own, the library's message, and the effort left.

    Args:
        schema: a refused schema.
        message: why the library refuses all of it.
        effort: characters that the library may read; each subschema tried costs the schema's length.
    """
    if not isinstance(schema, dict):
        return "", message, effort
    inner = _normal(_moved(schema))
    dialect = f', "$schema": {json.dumps(schema["$schema"])}' if "$schema" in schema else ""
    best = ("", message)
    for pointer, node in everything(schema):
        if not pointer or not isinstance(node, dict) or not (pointer + "/").startswith(best[0] + "/"):
            continue
        effort -= len(inner)
        if effort < 0:
            break
        there = with_patterns({"$ref": "#/x-root" + pointer.replace("%", "%25")}, 0, {})
        refused = _refusal(f'{{"x-root": {inner}, "$ref": {json.dumps(quote(there["$ref"]))}{dialect}}}')
        if refused:
            best = (pointer, refused)
    return *best, effort


def _moved(schema: Any) -> Any:
    """The schema with its own references pointing below "/x-root"."""

    def edit(node: dict[str, Any]) -> Any:
        reference = node.get("$ref")
        node = {k: v for k, v in node.items() if k not in ("$schema", "$id")}
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            node["$ref"] = "#/x-root" + reference[1:]
        return node

    return change(schema, edit)


def _keyword(schema: Any, place: str, message: str) -> str:
    node = resolve(schema, "#" + place.replace("%", "%25")) if place else schema
    keys = list(node) if isinstance(node, dict) else []
    named = re.search(r"Unimplemented keys: (\[.*?\])", message)
    if named:
        return str(json.loads(named[1])[0])
    if "format" in message and "format" in keys:
        return "format"
    if "oneOf" in message:
        return "oneOf"
    blamed = [key for key in ("pattern", "patternProperties") if key in keys]
    if blamed and ("regex" in message.lower() or "lookaround" in message):
        return blamed[0]
    if "Pointer" in message or "Resource" in message or "ref" in message:
        return "$ref"
    mentioned = [key for key in keys if key in message]
    return str((mentioned or [key for key in _CHOOSERS if key in keys] or keys or ["$schema"])[0])
