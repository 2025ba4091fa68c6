"""How model families write tool calls: one row of a table each, found by marks in the chat template.

The forms are those of the models' own chat templates (Hermes 2 Pro and Qwen 2.5/3, Llama 3.1 and later, Mistral v0.3
and later) and of nano.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from llmlab.errors import UnsupportedError
from llmlab.types import ToolCall


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's text, read: what it said, and what it called. Calls have no ids yet."""

    content: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One way of writing calls.

    Attributes:
        name: what it's called.
        example: a call as the model writes it.
        marks: texts that are all in the chat template of such a model.
        absent: texts that are not.
        controls: texts that may be one special token, which an engine leaves out of the text.
        read: from a whole text to what was said and called.
        key: what a call's arguments are called.
        before, between, after: what stands around the calls of one text, and `opening` and `closing` around each.
            A text that is in `controls` stands for the token where there is one.
        named: the name stands before the arguments instead of in the JSON object.
        prose: a regex of the texts that hold no call, for `strict`.
        alone: the template takes one call a message.
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


def call_of(value: Any, text: str) -> ToolCall:
    """The call that a JSON value stands for; one with a `problem` when it stands for none."""
    if not isinstance(value, dict):
        return ToolCall("", {}, problem=f"{text[:200]!r} is no JSON object")
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
            return ToolCall(name, {}, problem=f"the arguments of {name} are no JSON: {arguments[:200]!r}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return ToolCall(name, {}, problem=f"the arguments of {name} are no JSON object: {json.dumps(arguments)[:200]}")
    return ToolCall(name, arguments)


def _values(text: str) -> list[Any] | None:
    """The JSON values that a text is made of, with blanks, commas and semicolons between; None if there is more."""
    decoder, values, position = json.JSONDecoder(), [], 0
    while position < len(text):
        if text[position] in " \t\r\n,;":
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        values.append(value)
    return values


def _is_call(value: Any) -> bool:
    """A JSON object is taken for a call, and not for an answer in JSON, when it has a name and arguments."""
    if not isinstance(value, dict):
        return False
    call = call_of(value, "")
    inner = value.get("function")
    holder = inner if isinstance(inner, dict) else value
    return not call.problem and any(key in holder for key in ("arguments", "parameters"))


def read_plain(text: str) -> Reading:
    """`{"name": ..., "arguments": {...}}`, one or several, and nothing else; any other text is an answer."""
    values = _values(text.strip())
    if values and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values or not all(_is_call(value) for value in values):
        return Reading(text)
    return Reading("", tuple(call_of(value, "") for value in values))


def read_hermes(text: str) -> Reading:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, after any text."""
    return _tagged(text, re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL), _loaded)


def _tagged(text: str, pattern: re.Pattern[str], call: Callable[[str], ToolCall]) -> Reading:
    calls = tuple(call(found[1].strip()) for found in pattern.finditer(text))
    return Reading(pattern.sub("", text).strip() if calls else text, calls)


def _loaded(text: str) -> ToolCall:
    try:
        return call_of(json.loads(text), text)
    except (ValueError, RecursionError) as error:
        return ToolCall("", {}, problem=f"{text[:200]!r} is no JSON ({error})")


_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)


def read_xml(text: str) -> Reading:
    """`<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`, after any text.

    A value that reads as a JSON object or list is one; any other is text, which the check of the arguments converts.
    """

    def call(body: str) -> ToolCall:
        found = _FUNCTION.search(body)
        if found is None:
            return ToolCall("", {}, problem=f"{body[:200]!r} has no <function=NAME>")
        return ToolCall(
            found[1].strip(), {key.strip(): _xml_value(value) for key, value in _PARAMETER.findall(found[2])}
        )

    return _tagged(text, re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL), call)


def _xml_value(text: str) -> Any:
    if text.strip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def read_llama(text: str) -> Reading:
    """`{"name": ..., "parameters": {...}}`, after `<|python_tag|>` or not, several with `;` between."""
    head, tag, tail = text.partition("<|python_tag|>")
    if not tag:
        return read_plain(text)
    read = read_plain(tail)
    if not read.calls:
        problem = f"{tail.strip()[:200]!r} is no JSON object with a name and parameters"
        return Reading(head.strip(), (ToolCall("", {}, problem=problem),))
    return Reading(head.strip(), read.calls)


_ARGS = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*")


def read_mistral(text: str) -> Reading:
    """`[TOOL_CALLS] [{"name": ..., "arguments": {...}}]`, or `[TOOL_CALLS]name[ARGS]{...}`, after any text."""
    head, *parts = text.split("[TOOL_CALLS]")
    if not parts:
        return Reading(text)
    calls: list[ToolCall] = []
    for part in parts:
        body = part.strip()
        if body.startswith(("[", "{")):
            values = _values(body)
            if values is None:
                calls.append(ToolCall("", {}, problem=f"{body[:200]!r} is no JSON"))
                continue
            flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
            calls += [call_of(value, json.dumps(value)) for value in flat]
            continue
        calls += _by_name(body)
    return Reading(head.strip(), tuple(calls))


def _by_name(body: str) -> list[ToolCall]:
    calls, position = [], 0
    while position < len(body):
        found = _ARGS.match(body, position)
        try:
            if found is None:
                raise ValueError("there is no name")
            arguments, position = json.JSONDecoder().raw_decode(body, found.end())
        except (ValueError, RecursionError) as error:
            calls.append(ToolCall("", {}, problem=f"{body[position:][:200]!r} can't be read ({error})"))
            break
        calls.append(call_of({"name": found[1], "arguments": arguments}, body))
        position += len(body[position:]) - len(body[position:].lstrip())
    return calls


_NO_TAG = r"/(.|\n)+/ & ~/(.|\n)*<tool_call>(.|\n)*/"

# The first row whose marks are in the template is taken.
FAMILIES: tuple[Family, ...] = (
    Family(
        "qwen-xml",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
        marks=("<tool_call>", "<function=", "<parameter="),
        read=read_xml,
        controls=("<tool_call>", "</tool_call>"),
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
    """The family of a model, by its chat template.

    Args:
        template: the Jinja chat template.
        model: the model's name, for the error.

    Raises:
        UnsupportedError: the template has no place for tools.
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
        f"{model} can't be given tools: its chat template has no place for them.",
        "Load a model whose template has one (nano, Qwen, Llama 3, Mistral), or ask for JSON with schema=.",
    )


def read_calls(family: Family, text: str, first: int) -> Reading:
    """What a text says and calls, each call with an id.

    Args:
        family: how this model writes calls.
        text: the whole text, with its control tokens.
        first: the number of the first call in the conversation.
    """
    read = family.read(text)
    # Nine letters and digits, as Mistral's templates insist.
    numbered = [
        ToolCall(call.name, call.arguments, f"call{first + place:05d}", call.problem)
        for place, call in enumerate(read.calls)
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
    """A text with the control tokens put back that an engine leaves out of it.

    Args:
        text: the text as the engine gave it.
        ids: its token ids.
        controls: the texts of the tokens to put back, where they are one token each.
        tokenize: from text to ids, special tokens read as such.
        detokenize: from ids to text, special tokens left out.
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
