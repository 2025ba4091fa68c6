"""The tool call formats of model families, one table row each, detected by markers in the chat template.

The formats are those of the models' own chat templates (Hermes 2 Pro and Qwen 2.5/3, Llama 3.1 and later, Mistral v0.3
and later) and of nano.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmlab.errors import UnsupportedError
from llmlab.types import ToolCall


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's text, parsed into content and calls. The calls have no ids yet."""

    content: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One tool call format.

    Attributes:
        name: the family's name.
        example: a call as the model writes it.
        marks: texts that must all occur in the chat template.
        absent: texts that must not.
        controls: texts that may be special tokens, which engines omit from the output text.
        read: parses a complete text.
        key: the JSON key of a call's arguments.
        before, between, after: the text before, between and after the calls of one message; `opening` and `closing`
            surround each call. A text in `controls` is generated as its special token, if there is one.
        named: the name precedes the arguments instead of being in the JSON object.
        prose: a Lark regex of texts without a call, for `strict`.
        alone: the template takes one call per message.
        untyped: arguments are written as text; the tool's schema determines their types.
    """

    name: str
    example: str
    marks: tuple[str, ...]
    read: Callable[[str], Reading]
    key: Literal["arguments", "parameters"] = "arguments"
    absent: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    named: bool = False
    prose: str = r"/[^{\[\s](.|\n)*/"
    alone: bool = False
    untyped: bool = False


def call_of(value: Any, text: str) -> ToolCall:
    """The call in a JSON value; it has a `problem` if the value isn't a valid call."""
    if not isinstance(value, dict):
        return ToolCall("", {}, problem=f"{text[:200]!r} is not a JSON object")
    inner = value.get("function")
    name = value.get("name") or (inner if isinstance(inner, str) else None)
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


def _json_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends; markers inside its strings are ignored.

    Raises:
        ValueError: there is none.
    """
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _values(text: str) -> list[Any] | None:
    """The JSON values in a text, separated by whitespace, commas and semicolons; None if there is anything else."""
    values, position = [], _gap(text, 0)
    while position < len(text):
        try:
            value, position = _json_at(text, position)
        except ValueError:
            return None
        values.append(value)
        position = _gap(text, position)
    return values


def _gap(text: str, position: int) -> int:
    """The end of the whitespace, commas and semicolons at a position."""
    found = _GAP.match(text, position)
    return found.end() if found else position


def _is_json(text: str) -> bool:
    """Whether a text is only JSON: an answer in JSON may contain a marker in a string."""
    return text.lstrip()[:1] in ("{", "[", '"') and _values(text) is not None


def _unreadable(content: list[str], calls: list[ToolCall], problem: str) -> Reading:
    """A reading that ends at an invalid call: where that call ends is unknown, so the rest is not parsed."""
    return Reading("".join(content).strip(), (*calls, ToolCall("", {}, problem=problem)))


def _is_call(value: Any) -> bool:
    """Whether a JSON value is a call rather than an answer in JSON: it has a name and arguments."""
    if not isinstance(value, dict):
        return False
    call = call_of(value, "")
    inner = value.get("function")
    holder = inner if isinstance(inner, dict) else value
    return not call.problem and any(key in holder for key in ("arguments", "parameters"))


def read_plain(text: str) -> Reading:
    """Parse one or more `{"name": ..., "arguments": {...}}` and nothing else; any other text is an answer."""
    values = _values(text.strip())
    if values and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values or not all(_is_call(value) for value in values):
        return Reading(text)
    return Reading("", tuple(call_of(value, "") for value in values))


_OPEN = "<tool_call>"
_HERMES_END = re.compile(r"\s*(?:</tool_call>|(?=<tool_call>)|\Z)")


def read_hermes(text: str) -> Reading:
    """Parse `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, after any text."""
    content: list[str] = []
    calls: list[ToolCall] = []
    position = len(text) if _is_json(text) else 0
    while (start := text.find(_OPEN, position)) >= 0:
        content.append(text[position:start])
        begin = start + len(_OPEN)
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        try:
            value, position = _json_at(text, begin)
            end = _HERMES_END.match(text, position)
            if end is None:
                raise ValueError(f"unexpected text after it: {text[position:][:40]!r}")
        except ValueError as error:
            return _unreadable(content, calls, f"{text[begin:][:200]!r} is not JSON ({error})")
        calls.append(call_of(value, text[begin:position]))
        position = end.end()
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


# A value of the XML format is raw text without escapes. A closing tag ends it only if the rest of a call follows; a
# complete call inside a value is part of the value.
_XML_CALL = re.compile(r"<tool_call>\s*<function=([^>\n]+)>\s*")
_XML_END = r"</function>\s*(?:</tool_call>|\Z)"
_XML_NONE = re.compile(_XML_END)
_XML_FIRST = re.compile(r"<parameter=([^>\n]+)>\n?")
_XML_MARK = re.compile(
    rf"(?P<empty><tool_call>\s*<function=[^>\n]+>\s*{_XML_END})|(?P<open><tool_call>\s*<function=[^>\n]+>)"
    rf"|\n?</parameter>\s*(?:<parameter=(?P<key>[^>\n]+)>\n?|{_XML_END})"
)
_XML_STRAY = re.compile(r"</(?:parameter|function|tool_call)>")


def read_xml(text: str) -> Reading:
    """Parse `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`, after any text.

    Values are text; `read_calls` converts them by the tool's schema. The format has no escapes, so a value that
    contains the end of a value and the start of another looks like two values. If that is detectable (a repeated
    argument, stray closing tags), the call has a problem and isn't run. Otherwise the text is ambiguous, and is read as
    separate arguments or calls.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        if calls and _XML_STRAY.search(text, position, start):
            break
        content.append(text[position:start])
        try:
            call, position = _xml_call(text, start)
        except ValueError as error:
            return _unreadable(content, calls, str(error))
        calls.append(call)
    if calls and _XML_STRAY.search(text, position):
        # One of the last call's values may contain the end of a call, so where the call ends is unknown.
        return _unreadable(content, calls[:-1], f"{calls[-1].name}: stray closing tags after the call{_XML_HINT}")
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


_XML_HINT = ", so the end of a value is ambiguous; write values without </parameter>"


def _xml_call(text: str, start: int) -> tuple[ToolCall, int]:
    """The call that starts at a position, and where it ends.

    Raises:
        ValueError: it is invalid or ambiguous.
    """
    found = _XML_CALL.match(text, start)
    if found is None:
        raise ValueError(f"{text[start + len(_OPEN) :].strip()[:200]!r} has no <function=NAME>")
    name, arguments = found[1].strip(), dict[str, str]()
    end = _XML_NONE.match(text, found.end())
    if end is not None:
        return ToolCall(name, {}), end.end()
    first = _XML_FIRST.match(text, found.end())
    if first is None:
        raise ValueError(f"{name}: {text[found.end() :][:100]!r} has no <parameter=NAME>")
    key, begin, depth = first[1].strip(), first.end(), 0
    position = begin
    while (mark := _XML_MARK.search(text, position)) is not None:
        position = mark.end()
        if mark["open"]:
            depth += 1
        elif mark["empty"]:
            continue
        elif depth:
            depth -= mark["key"] is None
        # A value that starts on its own line ends on one (an empty value's newline may be the opening tag's).
        elif text[begin - 1] == "\n" and "\n" not in (text[mark.start()], text[mark.start() - 1]):
            position = mark.start() + 1
        else:
            arguments[key] = text[begin : mark.start()]
            if mark["key"] is None:
                return ToolCall(name, arguments), mark.end()
            key, begin = mark["key"].strip(), mark.end()
            if key in arguments:
                raise ValueError(f"{name}: the argument {key!r:.60} is repeated{_XML_HINT}")
    raise ValueError(f"{name}: the argument {key!r:.60} isn't closed")


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
            key: _typed(value, _kinds(properties.get(key, {}), parameters)) for key, value in call.arguments.items()
        },
    )


_ANY_KIND = frozenset(("string", "object", "array"))


def _kinds(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
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
        return _kinds(root.get("$defs", {}).get(reference.rpartition("/")[2]), root, depth + 1)
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if isinstance(branches, list):
        return frozenset(kind for branch in branches for kind in _kinds(branch, root, depth + 1))
    return _ANY_KIND


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _typed(text: str, kinds: frozenset[str]) -> Any:
    if "string" in kinds and not kinds & {"object", "array"}:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    kind = _kind(value)
    fits = kind in kinds or (kind == "integer" and "number" in kinds)
    return value if fits and not isinstance(value, str) else text


def read_llama(text: str) -> Reading:
    """Parse `{"name": ..., "parameters": {...}}`, optionally after `<|python_tag|>`, several separated by `;`."""
    head, tag, tail = text.partition("<|python_tag|>")
    if not tag or _is_json(text):
        return read_plain(text)
    read = read_plain(tail)
    if not read.calls or head.lstrip()[:1] in ("{", "["):
        shown = tail if not read.calls else text
        problem = f"{shown.strip()[:200]!r} is not a JSON object with a name and parameters"
        return Reading("" if read.calls else head.strip(), (ToolCall("", {}, problem=problem),))
    return Reading(head.strip(), read.calls)


_CALLS = "[TOOL_CALLS]"
_ARGS = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*")


def read_mistral(text: str) -> Reading:
    """Parse `[TOOL_CALLS] [{"name": ..., "arguments": {...}}]` or `[TOOL_CALLS]name[ARGS]{...}`, after any text."""
    head, mark, _ = text.partition(_CALLS)
    if not mark or _is_json(text):
        return Reading(text)
    calls: list[ToolCall] = []
    position = _gap(text, len(head))
    while position < len(text):
        if text.startswith(_CALLS, position):
            position = _gap(text, position + len(_CALLS))
            continue
        try:
            found = None if text[position] in "[{" else _ARGS.match(text, position)
            if found is None and text[position] not in "[{":
                raise ValueError("no name")
            value, end = _json_at(text, found.end() if found else position)
        except ValueError as error:
            reason = "is not JSON" if text[position] in "[{" else "can't be read"
            return _unreadable([head], calls, f"{text[position:][:200]!r} {reason} ({error})")
        if found is not None:
            calls.append(call_of({"name": found[1], "arguments": value}, text[position:end]))
        else:
            calls += [call_of(one, json.dumps(one)) for one in (value if isinstance(value, list) else [value])]
        position = _gap(text, end)
    return Reading(head.strip(), tuple(calls))


_NO_TAG = r"/(.|\n)+/ & ~/(.|\n)*<tool_call>(.|\n)*/"

# The first row whose marks are all in the template is used.
FAMILIES: tuple[Family, ...] = (
    Family(
        "qwen-xml",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
        marks=("<tool_call>", "<function=", "<parameter="),
        read=read_xml,
        controls=("<tool_call>", "</tool_call>"),
        untyped=True,
    ),
    Family(
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
        marks=("<tool_call>",),
        read=read_hermes,
        controls=("<tool_call>", "</tool_call>"),
        between=("\n",),
        opening=("<tool_call>", "\n"),
        closing=("\n", "</tool_call>"),
        prose=_NO_TAG,
    ),
    Family(
        "mistral-args",
        '[TOOL_CALLS]add[ARGS]{"a": 1}',
        marks=("[TOOL_CALLS]", "[ARGS]"),
        read=read_mistral,
        controls=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        opening=("[TOOL_CALLS]",),
        between=(),
        named=True,
        prose=r"/(.|\n)+/ & ~/(.|\n)*\[TOOL_CALLS\](.|\n)*/",
    ),
    Family(
        "mistral",
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]',
        marks=("[TOOL_CALLS]",),
        read=read_mistral,
        controls=("[TOOL_CALLS]",),
        before=("[TOOL_CALLS]", " ["),
        between=(", ",),
        after=("]",),
        prose=r"/(.|\n)+/ & ~/(.|\n)*\[TOOL_CALLS\](.|\n)*/",
    ),
    Family(
        "llama3",
        '{"name": "add", "parameters": {"a": 1}}',
        marks=('"parameters"', "ipython"),
        read=read_llama,
        key="parameters",
        controls=("<|python_tag|>",),
        between=("; ",),
        alone=True,
    ),
    Family(
        "plain",
        '{"name": "add", "arguments": {"a": 1}}',
        marks=("tools",),
        read=read_plain,
        between=("\n",),
    ),
)


def detect(template: str | None, model: str = "This model") -> Family:
    """Detect a model's family from its chat template.

    Args:
        template: the Jinja chat template.
        model: the model's name, for the error.

    Raises:
        UnsupportedError: the template doesn't support tools.
    """
    for family in FAMILIES:
        if (
            template
            and "tools" in template
            and all(mark in template for mark in family.marks)
            and not any(mark in template for mark in family.absent)
        ):
            return family
    raise UnsupportedError(
        f"{model} doesn't support tools: its chat template has no place for them.",
        "Load a model that does (nano, Qwen, Llama 3, Mistral), or request JSON with schema=.",
    )


def read_calls(
    family: Family, text: str, first: int, parameters: Mapping[str, Mapping[str, Any]] | None = None
) -> Reading:
    """Parse a text into content and calls, and give each call an id.

    Args:
        family: the model's call format.
        text: the complete text, with its control tokens.
        first: the number of calls in the conversation so far.
        parameters: the JSON schema of each tool's arguments, by tool name.
    """
    read = family.read(text)
    calls = read.calls
    if family.untyped:
        calls = tuple(typed(call, (parameters or {}).get(call.name, {})) for call in calls)
    # Mistral's templates require ids of nine letters and digits.
    numbered = [
        ToolCall(call.name, call.arguments, f"call{first + place:05d}", call.problem)
        for place, call in enumerate(calls)
    ]
    return Reading(read.content, tuple(numbered))


def with_controls(
    text: str,
    ids: tuple[int, ...],
    controls: tuple[str, ...],
    *,
    tokenize: Callable[[str], list[int]],
    detokenize: Callable[[list[int]], str],
) -> str:
    """Restore the control tokens that an engine omits from its output text.

    Args:
        text: the engine's output text.
        ids: its token ids.
        controls: the texts of the tokens to restore; ignored if not a single token.
        tokenize: text -> ids, with special tokens recognised.
        detokenize: ids -> text, without special tokens.
    """
    places = {found[0]: control for control in controls if len(found := tokenize(control)) == 1}
    if not any(token in places and not detokenize([token]) for token in ids):
        return text
    out: list[str] = []
    run: list[int] = []
    for token in ids:
        if token in places:
            out += [detokenize(run) if run else "", places[token]]
            run = []
        else:
            run.append(token)
    return "".join([*out, detokenize(run) if run else ""])
