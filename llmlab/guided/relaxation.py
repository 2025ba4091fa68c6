"""Rewrite the keywords that token masks can't express: exactly where possible, else into a looser mask.

A looser mask lets some invalid texts through. `relaxed` lists the keywords concerned, which the engines check when a
text ends, and roll back from.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from llmlab.guided.chars import Node
from llmlab.guided.ecma import EcmaError, finds, parsed
from llmlab.guided.formats import KNOWN
from llmlab.guided.walk import children, escape, everything, resolve

TYPES = ("object", "array", "string", "number", "boolean", "null")
# Subschemas in these places don't apply to the text as they are.
_NOT_POSITIVE = (
    "not",
    "if",
    "contains",
    "propertyNames",
    "oneOf",
    "dependentSchemas",
    "dependentRequired",
    "dependencies",
)
# A rewrite into alternatives multiplies them: this many at most.
_MOST_BRANCHES = 8
_MOST_CLAUSES = 2
_DEPTH = 12
_UNKNOWN = (
    "$dynamicRef",
    "$recursiveRef",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "unevaluatedItems",
    "unevaluatedProperties",
)


class _Relaxer:
    """Rewrites one schema.

    Args:
        root: the entire schema.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.checked: dict[str, None] = {}
        self.moved: dict[str, str] = {}
        self.waiting: list[str] = []

    def run(self) -> Any:
        out = self.positive(self.root, "")
        extra: dict[str, Any] = {}
        while self.waiting:
            reference = self.waiting.pop()
            try:
                target = resolve(self.root, reference)
            except (LookupError, ValueError, TypeError):
                target = True
            extra[self.moved[reference]] = self.positive(target, reference[1:])
        if extra and isinstance(out, dict):
            out = {**out, "$defs": {**(out["$defs"] if isinstance(out.get("$defs"), dict) else {}), **extra}}
        return out

    def note(self, pointer: str, keyword: str) -> None:
        self.checked.setdefault(f"{pointer}/{keyword}")

    def positive(self, node: Any, pointer: str) -> Any:
        """A schema that every valid value satisfies; what it misses is noted."""
        from jsonschema import FormatChecker

        if not isinstance(node, dict):
            return node
        out = {
            key: value
            for key, value in node.items()
            if key not in (*_NOT_POSITIVE, "then", "else", "minContains", "maxContains", "uniqueItems", *_UNKNOWN)
        }
        for step, child in children(node):
            keyword, _, rest = step[1:].partition("/")
            if keyword not in out:
                continue
            new = self.positive(child, pointer + step)
            if not rest:
                out[keyword] = new
            elif isinstance(out[keyword], list):
                out[keyword] = [*out[keyword][: int(rest)], new, *out[keyword][int(rest) + 1 :]]
            else:
                name = rest.replace("~1", "/").replace("~0", "~")
                out[keyword] = {**out[keyword], name: new}
        if isinstance(out.get("$ref"), str):
            out["$ref"] = self.reference(out["$ref"])
        clauses: list[Any] = []
        self._one_of(node, pointer, clauses)
        self._not(node, pointer, clauses)
        self._if(node, pointer, clauses)
        self._dependent(node, pointer, clauses)
        self._names(node, pointer, out)
        self._items(node, pointer, out)
        self._unevaluated(node, pointer, out)
        self._count(node, pointer, out, clauses)
        form = node.get("format")
        if isinstance(form, str) and form not in KNOWN and form in FormatChecker.checkers:
            del out["format"]
            self.note(pointer, "format")
        for key in ("$dynamicRef", "$recursiveRef"):
            if key in node:
                self.note(pointer, key)
        if clauses:
            only = clauses[0] if len(clauses) == 1 else None
            if isinstance(only, dict) and not set(only) & set(out):
                out |= only
            else:
                out["allOf"] = [*(out.get("allOf") or ()), *clauses]
        return out

    def reference(self, reference: str) -> str:
        """A reference that still resolves after the rewrite: a target in a keyword that is gone moves to $defs."""
        if not reference.startswith("#/"):
            return reference
        steps = reference[2:].split("/")
        if not any(step in (*_NOT_POSITIVE, "then", "else") for step in steps):
            return reference
        if reference not in self.moved:
            self.moved[reference] = f"x-moved-{len(self.moved)}"
            self.waiting.append(reference)
        return f"#/$defs/{self.moved[reference]}"

    # -- one keyword each ---------------------------------------------------------------------

    def _one_of(self, node: dict[str, Any], pointer: str, clauses: list[Any]) -> None:
        branches = node.get("oneOf")
        if not isinstance(branches, list):
            return
        base = {key: value for key, value in node.items() if key in ("type", "$ref")}
        overlapping = [
            (i, j)
            for i, j in itertools.combinations(range(len(branches)), 2)
            if not self.disjoint(_both(base, branches[i]), _both(base, branches[j]))
        ]
        made = [self.positive(branch, f"{pointer}/oneOf/{i}") for i, branch in enumerate(branches)]
        if overlapping:
            without = self._exclusive(branches, made, overlapping)
            if without is None:
                self.note(pointer, "oneOf")
            else:
                made = without
        clauses.append({"anyOf": made})

    def _exclusive(self, branches: list[Any], made: list[Any], pairs: list[tuple[int, int]]) -> list[Any] | None:
        """The branches, each without what the others accept; None if that can't be written."""
        if len(branches) > _MOST_BRANCHES:
            return None
        out = []
        for i, branch in enumerate(made):
            parts = []
            for j in range(len(branches)):
                if (min(i, j), max(i, j)) in pairs and i != j:
                    no = self.negated(branches[j])
                    if no is None:
                        return None
                    parts.append(no)
            if sum(isinstance(part, dict) and "anyOf" in part for part in parts) > _MOST_CLAUSES:
                return None
            out.append({"allOf": [branch, *parts]} if parts else branch)
        return out

    def _not(self, node: dict[str, Any], pointer: str, clauses: list[Any]) -> None:
        if "not" not in node:
            return
        no = self.negated(node["not"])
        if no is None:
            self.note(pointer, "not")
        elif no != {}:
            clauses.append(no)

    def _if(self, node: dict[str, Any], pointer: str, clauses: list[Any]) -> None:
        if "if" not in node or not ("then" in node or "else" in node):
            return
        test, no = node["if"], self.negated(node["if"])
        yes = self.exact(test)
        if yes is None:
            yes = self.positive(test, f"{pointer}/if")
            self.note(pointer, "if")
        elif no is None:
            self.note(pointer, "if")
        then = self.positive(node.get("then", {}), f"{pointer}/then")
        other = self.positive(node.get("else", {}), f"{pointer}/else")
        if no is None and other in ({}, True):
            return
        clauses.append({"anyOf": [_all(yes, then), _all(no if no is not None else {}, other)]})

    def _dependent(self, node: dict[str, Any], pointer: str, clauses: list[Any]) -> None:
        required = node.get("required") or ()
        wanted: list[tuple[str, str, Any]] = []
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            value = node.get(keyword)
            for name, then in value.items() if isinstance(value, dict) else ():
                if then in (True, {}, []):
                    continue
                if isinstance(then, list | str):
                    names = [then] if isinstance(then, str) else then
                    wanted.append((keyword, name, {"required": [name, *(n for n in names if n != name)]}))
                else:
                    wanted.append((keyword, name, self.positive(then, f"{pointer}/{keyword}/{escape(name)}")))
        for place, (keyword, name, then) in enumerate(wanted):
            if name in required:
                clauses.append(then)
            elif place < _MOST_CLAUSES:
                without: dict[str, Any] = {"properties": {name: False}}
                clauses.append(
                    {"anyOf": [without, then if name in _required(then) else _all({"required": [name]}, then)]}
                )
            else:
                self.note(pointer, keyword)

    def _names(self, node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
        names = node.get("propertyNames")
        if names is None or names is True or names == {}:
            return
        rule = self.target(names) if isinstance(names, dict) else names
        known = node.get("properties") or {}
        if rule is False:
            out.update(properties={}, patternProperties={}, additionalProperties=False)
            return
        keys = set(rule) - {"type", "description", "title", "$comment", "examples", "default", "$id", "$schema"}
        value = out.get("additionalProperties", True)
        if keys in ({"enum"}, {"const"}) and not node.get("patternProperties"):
            listed = [one for one in rule.get("enum", [rule.get("const")]) if isinstance(one, str)]
            properties = out.get("properties") or {}
            out["properties"] = {
                **{name: one if name in listed else False for name, one in properties.items()},
                **{name: value for name in listed if name not in properties},
            }
            out["additionalProperties"] = False
            return
        pattern = rule.get("pattern")
        if keys and keys <= {"minLength", "maxLength"}:
            pattern = rf"^[\s\S]{{{rule.get('minLength', 0)},{rule.get('maxLength', '')}}}$"
            keys = {"pattern"}
        if keys == {"pattern"} and isinstance(pattern, str) and not node.get("patternProperties"):
            try:
                fits = {name: finds(pattern, name) for name in known}
            except EcmaError:
                fits = None
            if fits is not None:
                properties = out.get("properties") or {}
                fine = {name: one for name, one in properties.items() if fits[name]}
                if value is not False and not fine:
                    out["patternProperties"] = {pattern: value}
                    out["properties"] = dict.fromkeys(properties, False)
                    out["additionalProperties"] = False
                    return
                if value is False:
                    out["properties"] = {name: one if fits[name] else False for name, one in properties.items()}
                    return
        self.note(pointer, "propertyNames")

    def _items(self, node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
        if node.get("uniqueItems") is True and not _at_most_one(node):
            self.note(pointer, "uniqueItems")
            few = self.few(node.get("items"))
            if few is not None and not node.get("prefixItems"):
                most = out.get("maxItems")
                out["maxItems"] = min(few, most) if isinstance(most, int | float) else few
        if "contains" in node:
            least = node.get("minContains", 1)
            if least or "maxContains" in node:
                self.note(pointer, "contains")
            if "maxContains" in node:
                self.note(pointer, "maxContains")
            if isinstance(least, int | float) and least > (node.get("minItems") or 0):
                out["minItems"] = int(least)

    def few(self, items: Any, depth: int = 3) -> int | None:
        """How many different values a schema has; None if unknown or many."""
        node = self.target(items) if isinstance(items, dict) else items
        if not isinstance(node, dict) or depth == 0:
            return None
        if isinstance(node.get("enum"), list):
            return len(node["enum"])
        if "const" in node or node.get("type") == "null":
            return 1
        if node.get("type") == "boolean":
            return 2
        for key in ("anyOf", "oneOf"):
            if isinstance(node.get(key), list):
                counts = [self.few(one, depth - 1) for one in node[key]]
                return None if None in counts else sum(counts)  # type: ignore[arg-type]
        return None

    def _unevaluated(self, node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
        for keyword, closing in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
            rest = node.get(keyword, True)
            if rest is True or rest == {}:
                continue
            applicators = (
                "$ref",
                "allOf",
                "anyOf",
                "oneOf",
                "if",
                "then",
                "else",
                "dependentSchemas",
                "not",
                "contains",
            )
            plain = not any(key in node for key in (*applicators, "$dynamicRef", "$recursiveRef"))
            if plain and closing not in node:
                out[closing] = self.positive(rest, f"{pointer}/{keyword}")
                continue
            self.note(pointer, keyword)
            if keyword == "unevaluatedProperties" and rest is False and closing not in node:
                seen = self.names_in(node)
                if seen is not None:
                    own = out.get("properties") or {}
                    out["properties"] = {**own, **{name: True for name in seen if name not in own}}
                    out[closing] = False

    def names_in(self, node: Any, depth: int = _DEPTH) -> list[str] | None:
        """The properties that a schema and those applied to the same object name; None if it may evaluate others."""
        if not isinstance(node, dict) or depth == 0:
            return [] if isinstance(node, bool) else None
        if node.get("patternProperties") or node.get("additionalProperties", False) is not False:
            return None
        if "$dynamicRef" in node or "$recursiveRef" in node or node.get("unevaluatedProperties", False) is not False:
            return None
        found = dict.fromkeys(node.get("properties") or ())
        inner: list[Any] = [one for key in ("allOf", "anyOf", "oneOf") for one in node.get(key) or ()]
        inner += [node[key] for key in ("if", "then", "else") if key in node]
        inner += (node.get("dependentSchemas") or {}).values()
        if isinstance(node.get("$ref"), str):
            try:
                inner.append(resolve(self.root, node["$ref"]))
            except (LookupError, ValueError, TypeError):
                return None
        for one in inner:
            names = self.names_in(one, depth - 1)
            if names is None:
                return None
            found |= dict.fromkeys(names)
        return list(found)

    def _count(self, node: dict[str, Any], pointer: str, out: dict[str, Any], clauses: list[Any]) -> None:
        """The number of properties, which the mask library counts only if the named ones are all required."""
        least, most = node.get("minProperties"), node.get("maxProperties")
        names = out.get("properties") or {}
        required = set(node.get("required") or ())
        if (least is None and most is None) or set(names) <= required:
            return
        live = [name for name, one in names.items() if one is not False]
        closed = out.get("additionalProperties", True) is False and not out.get("patternProperties")
        out.pop("minProperties", None)
        out.pop("maxProperties", None)
        if isinstance(least, int | float) and least > len(required & set(live)):
            if closed and least == len(live):
                out["required"] = [*required, *(name for name in live if name not in required)]
            elif closed and least == 1 and len(live) <= _MOST_BRANCHES:
                clauses.append({"anyOf": [{"required": [name]} for name in live]})
            else:
                self.note(pointer, "minProperties")
        if isinstance(most, int | float) and not (closed and most >= len(live)):
            self.note(pointer, "maxProperties")

    # -- logic --------------------------------------------------------------------------------

    def target(self, node: Any) -> Any:
        """A schema with its reference followed, if there is nothing beside it."""
        for _ in range(_DEPTH):
            if not isinstance(node, dict) or set(node) - {"description", "title", "$comment"} != {"$ref"}:
                return node
            try:
                node = resolve(self.root, node["$ref"])
            except (LookupError, ValueError, TypeError):
                return node
        return node

    def exact(self, node: Any) -> Any | None:
        """The rewritten schema if nothing of it needs a check, else None."""
        before = dict(self.checked)
        made = self.positive(node, "")
        fine = self.checked == before and self._refers_exactly(made)
        self.checked = before
        return made if fine else None

    def _refers_exactly(self, made: Any) -> bool:
        return not any(isinstance(one, dict) and "$ref" in one for _, one in everything(made))

    def negated(self, node: Any, depth: int = 4) -> Any | None:
        """A schema of exactly the values that a schema rejects; None if it can't be written."""
        node = self.target(node)
        if node is True or node == {}:
            return False
        if node is False:
            return {}
        if not isinstance(node, dict) or depth == 0:
            return None
        parts = []
        for key, value in node.items():
            if key in (
                "title",
                "description",
                "$comment",
                "examples",
                "default",
                "$id",
                "$schema",
                "definitions",
                "$defs",
            ):
                continue
            no = self._negated_keyword(node, key, value, depth)
            if no is None:
                return None
            if no is True or no == {}:
                return {}
            if no is not False:
                parts.append(no)
        if not parts:
            return False
        flat = [one for part in parts for one in (part["anyOf"] if set(part) == {"anyOf"} else [part])]
        if len(flat) > _MOST_BRANCHES:
            return None
        return flat[0] if len(flat) == 1 else {"anyOf": flat}

    def _negated_keyword(self, node: dict[str, Any], key: str, value: Any, depth: int) -> Any | None:
        if key == "type":
            return _other_types(value)
        if key in ("const", "enum"):
            values = [value] if key == "const" else value
            return _other_values(values) if isinstance(values, list) else None
        if key == "not":
            return self.exact(value)
        if key == "required" and isinstance(value, list):
            return {"anyOf": [{"type": "object", "properties": {name: False}} for name in value]} if value else False
        if key in ("anyOf", "allOf") and isinstance(value, list):
            noes = [self.negated(one, depth - 1) for one in value]
            if any(no is None for no in noes):
                return None
            if key == "anyOf":
                if sum(isinstance(no, dict) and "anyOf" in no for no in noes) > _MOST_CLAUSES:
                    return None
                return False if False in noes else {"allOf": noes} if len(noes) > 1 else noes[0]
            kept = [no for no in noes if no is not False]
            return ({} if {} in kept or True in kept else {"anyOf": kept}) if kept else False
        if key == "properties" and isinstance(value, dict):
            found = []
            for name, one in value.items():
                no = self.negated(one, depth - 1)
                if no is None:
                    return None
                if no is not False:
                    found.append({"type": "object", "properties": {name: no}, "required": [name]})
            return {"anyOf": found} if found else False
        if key in ("minLength", "minItems") and isinstance(value, int | float):
            kind, other = ("string", "maxLength") if key == "minLength" else ("array", "maxItems")
            return {"type": kind, other: int(value) - 1} if value > 0 else False
        if key in ("maxLength", "maxItems") and isinstance(value, int | float):
            kind, other = ("string", "minLength") if key == "maxLength" else ("array", "minItems")
            return {"type": kind, other: int(value) + 1}
        if key in ("minimum", "maximum") and isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(node.get("exclusiveMinimum" if key == "minimum" else "exclusiveMaximum"), bool):
                return None
            return {"type": "number", "exclusiveMaximum" if key == "minimum" else "exclusiveMinimum": value}
        return None

    def disjoint(self, a: Any, b: Any, depth: int = _DEPTH) -> bool:
        """Whether it is proven that no value satisfies both schemas."""
        if a is False or b is False:
            return True
        if not isinstance(a, dict) or not isinstance(b, dict) or depth == 0:
            return False
        for one, other in ((a, b), (b, a)):
            if isinstance(one.get("$ref"), str):
                try:
                    target = resolve(self.root, one["$ref"])
                except (LookupError, ValueError, TypeError):
                    continue
                if self.disjoint(target, other, depth - 1):
                    return True
            for inner in one.get("allOf") or ():
                if self.disjoint(inner, other, depth - 1):
                    return True
            for key in ("anyOf", "oneOf"):
                branches = one.get(key)
                if (
                    isinstance(branches, list)
                    and len(branches) <= 32
                    and all(self.disjoint(inner, other, depth - 1) for inner in branches)
                ):
                    return True
            if "not" in one and self._implies(other, one["not"], depth - 1):
                return True
        kinds, others = _types(a), _types(b)
        common = kinds & others
        if not common:
            return True
        values, more = _values(a), _values(b)
        if values is not None and more is not None:
            return not any(_equal(x, y) for x in values for y in more)
        for known, other in ((values, b), (more, a)):
            if known is not None and all(self._rejects(other, value) for value in known):
                return True
        return all(self._apart(kind, a, b, depth) for kind in common)

    def _implies(self, a: Any, b: Any, depth: int) -> bool:
        """Whether every value of `a` obviously satisfies `b`."""
        b = self.target(b)
        if b is True or b == {}:
            return True
        return depth > 0 and json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)

    def _rejects(self, schema: Any, value: Any) -> bool:
        import jsonschema

        if any(isinstance(one, dict) and ("$ref" in one or "$dynamicRef" in one) for _, one in everything(schema)):
            return False
        try:
            return not jsonschema.Draft202012Validator(schema).is_valid(value)
        except Exception:
            return False

    def _apart(self, kind: str, a: dict[str, Any], b: dict[str, Any], depth: int) -> bool:
        if kind == "object":
            for one, other in ((a, b), (b, a)):
                named = other.get("properties") or {}
                for name in one.get("required") or ():
                    mine = (one.get("properties") or {}).get(name, True)
                    if name in named:
                        if self.disjoint(mine, named[name], depth - 1):
                            return True
                    elif other.get("additionalProperties") is False and not other.get("patternProperties"):
                        return True
            return False
        if kind == "array":
            return _gap(a, b, "minItems", "maxItems")
        if kind == "string":
            return _gap(a, b, "minLength", "maxLength")
        if kind == "number":
            return any(
                isinstance(low := one.get(least), int | float)
                and isinstance(high := other.get(most), int | float)
                and not isinstance(low, bool) and not isinstance(high, bool)
                and (low > high or (low == high and "exclusive" in least + most))
                for one, other in ((a, b), (b, a))
                for least in ("minimum", "exclusiveMinimum")
                for most in ("maximum", "exclusiveMaximum")
            )  # fmt: skip
        return False


def _gap(a: Mapping[str, Any], b: Mapping[str, Any], least: str, most: str) -> bool:
    return any(
        isinstance(low := one.get(least), int | float)
        and isinstance(high := other.get(most), int | float)
        and low > high
        for one, other in ((a, b), (b, a))
    )


def _at_most_one(node: Mapping[str, Any]) -> bool:
    most = node.get("maxItems")
    return isinstance(most, int | float) and most <= 1


def _both(base: dict[str, Any], branch: Any) -> Any:
    return {"allOf": [base, branch]} if base and branch is not False else branch


def _all(a: Any, b: Any) -> Any:
    if a in ({}, True):
        return b
    if b in ({}, True):
        return a
    return {"allOf": [a, b]}


def _required(schema: Any) -> Any:
    return schema.get("required", ()) if isinstance(schema, dict) else ()


def _types(node: Mapping[str, Any]) -> set[str]:
    """The types that a schema's own keywords allow, "number" for integers too."""
    kinds = node.get("type")
    if kinds is None:
        values = _values(node)
        return set(TYPES) if values is None else {_type_of(value) for value in values}
    return {"number" if kind == "integer" else kind for kind in ([kinds] if isinstance(kinds, str) else kinds)}


def _values(node: Mapping[str, Any]) -> list[Any] | None:
    if "const" in node:
        return [node["const"]]
    return node["enum"] if isinstance(node.get("enum"), list) else None


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    return {int: "number", float: "number", str: "string", list: "array", dict: "object"}[type(value)]


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _other_types(kinds: Any) -> Any | None:
    listed = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(listed, list) or ("integer" in listed and "number" not in listed):
        return None
    left = [kind for kind in TYPES if kind not in listed]
    return {"type": left} if left else False


def _other_values(values: list[Any]) -> Any | None:
    """All values but some: exact for null and booleans, and for short strings, where a pattern excludes them."""
    kinds = {_type_of(value) for value in values}
    if kinds - {"null", "boolean", "string"}:
        return None
    left: list[Any] = [{"type": [kind for kind in TYPES if kind not in kinds]}]
    if "boolean" in kinds:
        flags = [flag for flag in (True, False) if not any(value is flag for value in values)]
        left += [{"enum": flags}] if flags else []
    if "string" in kinds:
        texts = [value for value in values if isinstance(value, str)]
        if sum(map(len, texts)) > 400:
            return None
        left.append({"type": "string", "pattern": f"^(?:{_none_of(texts)})$"})
    left = [one for one in left if one.get("type") != []]
    return {"anyOf": left} if len(left) > 1 else left[0]


def _none_of(texts: list[str]) -> str:
    """An ECMA-262 regex that matches exactly the strings that aren't listed."""
    heads = sorted({text[0] for text in texts if text})
    parts = [] if "" in texts else [""]
    parts.append(f"[^{''.join(map(_hex, heads))}][\\s\\S]*" if heads else "[\\s\\S]+")
    parts += [f"{_hex(head)}(?:{_none_of([text[1:] for text in texts if text[:1] == head])})" for head in heads]
    return "|".join(parts)


def _hex(char: str) -> str:
    return f"\\u{{{ord(char):x}}}"


def relaxed(schema: Any) -> tuple[Any, tuple[str, ...]]:
    """A schema for the masks that every valid value satisfies, without the keywords that they can't express.

    Returns:
        The schema, and the JSON pointers of the keywords that it enforces only in part.
    """
    work = _Relaxer(schema)
    out = work.run()
    return copy.deepcopy(out), tuple(work.checked)


_FEW_KEYS = 1000


def with_few_keys(schema: Any) -> tuple[str, ...]:
    """JSON pointers of the `patternProperties` that leave an object only few keys, which can run out."""
    found = []
    for pointer, node in everything(schema):
        patterns = node.get("patternProperties") if isinstance(node, dict) else None
        if not isinstance(patterns, dict) or not patterns or node.get("additionalProperties", True) is not False:
            continue
        try:
            if sum(_size(parsed(pattern)) for pattern in patterns) <= _FEW_KEYS:
                found.append(f"{pointer}/patternProperties")
        except EcmaError:
            continue
    return tuple(found)


def _size(node: Node) -> float:
    """The most strings that a regex matches."""
    if node.kind == "chars":
        return sum(last - first + 1 for first, last in node.ranges)
    sizes = [_size(part) for part in node.parts]
    if node.kind == "alt":
        return sum(sizes)
    if node.kind == "rep":
        if node.most is None or sizes[0] > _FEW_KEYS or node.most > _FEW_KEYS:
            return math.inf
        if sizes[0] >= 2 and node.most >= 20:
            return math.inf
        return sum(sizes[0] ** count for count in range(node.least, node.most + 1))
    return math.prod(sizes)
