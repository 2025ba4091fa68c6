"""Arguments in the notations of call formats that aren't JSON, as grammar rules for `strict`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmlab.errors import UnsupportedError
from llmlab.guided.ecma import EcmaError, translated
from llmlab.guided.formats import REPLACED, TIGHTER
from llmlab.guided.schema import schema_guide
from llmlab.tool_calls.reading import kinds_of
from llmlab.tool_calls.tool import Tool

_ANY = r"(?s:.*)"
_NAMES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$defs", "$schema"}
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


@dataclass(frozen=True)
class Layout:
    """How a format with tags writes a call. NAME is replaced by the name of the tool or argument.

    Attributes:
        head: the start of a call.
        key: what precedes a value; KIND is replaced by "true" for text, else "false".
        close: what follows a value.
        mark: the closing tag, which no text may contain.
        gap: what follows each argument.
        tail: the end of a call.
        opener: a text that starts a call, which no value may contain.
    """

    head: str
    key: str
    close: str
    mark: str
    opener: str
    gap: str = "\n"
    tail: str = ""


class Rules:
    """The rules of a grammar, collected while its expressions are written.

    Args:
        family: the name of the call format, for messages.
        controls: texts that may be special tokens.
        special: text -> its id if it is a special token in the engine's masks, else None.
    """

    def __init__(self, family: str, controls: tuple[str, ...], special: Callable[[str], int | None]) -> None:
        self.lines: list[str] = []
        self.family = family
        self._tokens = {text: token for text in controls if (token := special(text)) is not None}
        marks = "|".join(re.escape(text) for text in sorted(self._tokens, key=len, reverse=True))
        self._split = re.compile(f"({marks})") if marks else None

    def pieces(self, text: str) -> list[str]:
        """A fixed text as a list of literals and special tokens."""
        parts = self._split.split(text) if self._split is not None else [text]
        return [f"<[{self._tokens[part]}]>" if part in self._tokens else json.dumps(part) for part in parts if part]

    def rule(self, body: str) -> str:
        """Add a rule, and return its name."""
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name}: {body}")
        return name

    def terminal(self, body: str) -> str:
        """Add a terminal, and return its name."""
        name = f"T{len(self.lines)}"
        self.lines.append(f"{name}: {body}")
        return name

    def value(self, schema: Any, root: Mapping[str, Any]) -> str:
        """A value in JSON."""
        shared = {"$defs": root["$defs"]} if "$defs" in root else {}
        whole = {**schema, **shared} if isinstance(schema, Mapping) else schema
        return self.rule(f"%json {schema_guide(whole, name=self.family).text}")

    def text(self, pattern: str | None, close: str, *, avoid: tuple[str, ...], mark: str = "") -> str:
        """A text without escapes, and what closes it.

        Args:
            pattern: a regex in Rust's dialect that the text matches; None for any text.
            close: what follows the text.
            avoid: texts that it may not contain.
            mark: the part of `close` that it may not contain; default: all of it.
        """
        first, *rest = self.pieces(close)
        marks = "|".join(literal(one) for one in {mark or close, *avoid})
        if first.startswith("<["):
            body = pattern or "(?s:.+)"
            text = self.terminal(f"/{body}/ & ~/{_ANY}({marks}){_ANY}/")
            return " ".join([text if pattern else f"{text}?", first, *rest])
        # The closing text is a part of the lexeme, and nothing longer matches.
        ending = literal(json.loads(first))
        return " ".join(
            [self.terminal(f"/{pattern or _ANY}{ending}/ & ~/{_ANY}({marks}){_ANY}{'' if rest else ending}/"), *rest]
        )

    def refuse(self, what: str) -> UnsupportedError:
        """The error for a parameter that can't be enforced."""
        return UnsupportedError(
            f"strict and tool_choice can't enforce {what} in this model's call format ({self.family}).",
            "Leave them out, simplify the parameter, or use the generic format: tool_format='generic'.",
        )


def literal(text: str) -> str:
    """A fixed text as a regex in a grammar."""
    return "".join(char if char.isalnum() and char.isascii() else f"\\x{{{ord(char):x}}}" for char in text)


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """A schema, or the one that it refers to."""
    seen = 0
    while isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str) and seen < 20:
        schema = root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
        seen += 1
    return schema


# -- formats with tags ---------------------------------------------------------------------------------


def tagged_call(tool: Tool, layout: Layout, rules: Rules) -> str:
    """A call whose values are text between tags: text as it is, anything else in JSON.

    Raises:
        UnsupportedError: a parameter can't be enforced.
    """
    out = rules.pieces(layout.head.replace("NAME", tool.name))
    required = tool.parameters.get("required", ())
    for name, schema in tool.parameters.get("properties", {}).items():
        is_text = "string" in kinds_of(schema, tool.parameters)
        key = layout.key.replace("NAME", name).replace("KIND", "true" if is_text else "false")
        where = f"{tool.name}'s parameter {name}"
        if is_text:
            value = _tagged_text(schema, tool.parameters, layout, rules, where)
        else:
            value = " ".join([rules.value(schema, tool.parameters), *rules.pieces(layout.close)])
        parts = " ".join([*rules.pieces(key), value, *rules.pieces(layout.gap)])
        out.append(parts if name in required else f"({parts})?")
    return " ".join([*out, *(rules.pieces(layout.tail) if layout.tail else ())])


def _tagged_text(schema: Any, root: Mapping[str, Any], layout: Layout, rules: Rules, where: str) -> str:
    """A text value, and what closes it."""
    fixed: list[str] = []
    ways: list[str] = []
    for branch in _branches(schema, root):
        values = [branch["const"]] if "const" in branch else branch.get("enum")
        if values is not None:
            fixed += [value for value in values if isinstance(value, str)]
            continue
        ways.append(
            rules.text(
                text_pattern(branch, rules, where),
                layout.close,
                avoid=(layout.opener,),
                mark=layout.mark,
            )
        )
    if fixed:
        texts = " | ".join(json.dumps(text) for text in dict.fromkeys(fixed) if text)
        ways.append(" ".join([f"({texts}){'?' if '' in fixed else ''}", *rules.pieces(layout.close)]))
    return f"({' | '.join(ways)})"


def _branches(schema: Any, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of a union that accept text."""
    schema = _resolved(schema, root)
    if not isinstance(schema, Mapping):
        yield {}
        return
    parts = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(parts, list):
        for part in parts:
            if "string" in kinds_of(part, root):
                yield from _branches(part, root)
    else:
        yield schema


def text_pattern(schema: Mapping[str, Any], rules: Rules, where: str) -> str | None:
    """A regex for the texts that a schema accepts, in Rust's dialect; None for any text.

    Raises:
        UnsupportedError: a keyword can't be enforced.
    """
    known = _NAMES | {"type", "pattern", "format", "minLength", "maxLength"}
    extra = [key for key in schema if key not in known]
    limits = [key for key in ("pattern", "format", "minLength", "maxLength") if key in schema]
    if "format" in limits:
        pattern = {**TIGHTER, **REPLACED, "uuid": _UUID}.get(schema["format"])
        if pattern is None:
            raise rules.refuse(f"the format {schema['format']!r} of {where}")
    else:
        pattern = None
    if extra or (len(limits) > 1 and not set(limits) <= {"minLength", "maxLength"}):
        raise rules.refuse(f"{' with '.join(extra or limits)} of {where}")
    if pattern is not None:
        return f"({pattern})".replace("/", r"\/")
    if "pattern" in limits:
        try:
            found = translated(schema["pattern"])[0]
        except EcmaError as error:
            raise rules.refuse(f"the pattern of {where} ({error})") from None
        return found.removeprefix("^").removesuffix("$").replace("/", r"\/")
    if limits:
        return f"(?s:.){{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}"
    return None


# -- lists of arguments ----------------------------------------------------------------------------


def _listed(items: list[tuple[str, bool]], comma: str, rules: Rules) -> str:
    """Items in their order, the optional ones or not, with commas between them.

    Args:
        items: expressions, and whether each is required.
        comma: what is between them.
        rules: takes the rules.
    """
    after, first = '""', '""'  # the rest after an item, and without one before it
    for item, required in reversed(items):
        more = f"{item} {after}" if after != '""' else item
        following, alone = f"{json.dumps(comma)} {more}", more
        if not required:
            following = f"{following} | {after}" if after != '""' else f"({following})?"
            alone = f"{alone} | {first}" if first != '""' else f"({alone})?"
        after, first = rules.rule(following), rules.rule(alone)
    return first


def python_call(tool: Tool, rules: Rules) -> str:
    """A Python call with keyword arguments, whose values are JSON (read like Python's, with true, false and null)."""
    required = tool.parameters.get("required", ())
    items = [
        (f"{json.dumps(f'{name}=')} {rules.value(schema, tool.parameters)}", name in required)
        for name, schema in tool.parameters.get("properties", {}).items()
    ]
    inner = _listed(items, ", ", rules)
    return " ".join([json.dumps(f"{tool.name}("), *([inner] if items else []), '")"'])


# -- Gemma 4 -------------------------------------------------------------------------------------------

_QUOTE = '<|"|>'


def gemma_call(tool: Tool, rules: Rules) -> str:
    """A call in Gemma 4's notation: bare keys, and texts between quotation tokens.

    Raises:
        UnsupportedError: a parameter can't be enforced.
    """
    written = _Gemma(tool.parameters, rules).object(tool.parameters, tool.name)
    return f"{json.dumps(f'call:{tool.name}')} {written}"


class _Gemma:
    """Writes the values of one tool's arguments."""

    def __init__(self, root: Mapping[str, Any], rules: Rules) -> None:
        self._root = root
        self._rules = rules
        self._named: dict[str, str] = {}

    def object(self, schema: Mapping[str, Any], where: str) -> str:
        """An object with known keys."""
        properties = schema.get("properties")
        extra = schema.get("additionalProperties")
        if (properties is None and schema is not self._root) or isinstance(extra, Mapping):
            raise self._rules.refuse(f"an object with free keys in {where}")
        required = schema.get("required", ())
        items = [
            (f"{json.dumps(f'{name}:')} {self.value(part, f'{where}.{name}')}", name in required)
            for name, part in (properties or {}).items()
        ]
        inner = _listed(items, ",", self._rules)
        return " ".join(['"{"', *([inner] if items else []), '"}"'])

    def value(self, schema: Any, where: str) -> str:
        """A value of any kind."""
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if isinstance(reference, str):
            if reference not in self._named:
                # The name first: a schema may contain itself.
                self._named[reference] = self._rules.rule("")
                place = len(self._rules.lines) - 1
                self._rules.lines[place] += self.value(_resolved(schema, self._root), where)
            return self._named[reference]
        if not isinstance(schema, Mapping) or not schema.keys() - _NAMES:
            return f"({self._text(None)} | {self._plain({'type': ['number', 'boolean', 'null']})})"
        union = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(union, list):
            return f"({' | '.join(self.value(part, where) for part in union)})"
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            return f"({' | '.join(self._fixed(value, where) for value in values)})"
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return f"({' | '.join(self.value({**schema, 'type': kind}, where) for kind in kinds)})"
        if kinds == "object":
            return self.object(schema, where)
        if kinds == "array":
            return self._array(schema, where)
        if kinds == "string":
            return self._text(text_pattern(schema, self._rules, where))
        if kinds in ("integer", "number", "boolean", "null"):
            return self._plain(schema)
        raise self._rules.refuse(f"{', '.join(sorted(schema.keys() - _NAMES))} of {where}")

    def _plain(self, schema: Mapping[str, Any]) -> str:
        return self._rules.value(schema, {})

    def _text(self, pattern: str | None) -> str:
        opening = " ".join(self._rules.pieces(_QUOTE))
        return f"{opening} {self._rules.text(pattern, _QUOTE, avoid=())}"

    def _fixed(self, value: Any, where: str) -> str:
        if isinstance(value, str):
            return " ".join(self._rules.pieces(f"{_QUOTE}{value}{_QUOTE}"))
        if isinstance(value, list | dict):
            raise self._rules.refuse(f"a fixed list or object in {where}")
        return json.dumps(json.dumps(value))

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        known = _NAMES | {"type", "items", "minItems", "maxItems", "prefixItems", "uniqueItems"}
        extra = sorted(schema.keys() - known)
        if extra or schema.get("uniqueItems"):
            raise self._rules.refuse(f"{', '.join(extra) or 'uniqueItems'} of {where}")
        if "prefixItems" in schema:
            items = [(self.value(part, where), True) for part in schema["prefixItems"]]
            return f'"[" {_listed(items, ",", self._rules)} "]"'
        item = self._rules.rule(self.value(schema.get("items", {}), where))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[" "]"'
        more = f'("," {item}){{{max(least - 1, 0)},{most - 1 if most is not None else ""}}}'
        return f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"'
