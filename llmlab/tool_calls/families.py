"""The tool call formats of model families, one table row each, detected by markers in the chat template.

The formats are those of the models' own chat templates, and of nano.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmlab.engines.templates import render
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.tool_calls import tagged
from llmlab.tool_calls.formats import python_calls, read_gemma4, read_listed, read_named, read_pythonic
from llmlab.tool_calls.notations import Layout
from llmlab.tool_calls.reading import (
    Reading,
    call_of,
    gap,
    is_json,
    json_at,
    typed,
    unreadable,
    values_of,
)
from llmlab.tool_calls.tagged import read_tagged
from llmlab.types import Message, ToolCall


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
        separator: with `named`, the text between the name and the arguments.
        naming: with `named`, the name as it is written; NAME is the tool's.
        numbered: with `named`, a number follows the name.
        layout: how arguments between tags are written.
        notation: how arguments are written that are neither JSON nor between tags.
        record: the form of a call in JSON: under "name", under "tool_name" with an id, or under the tool's name.
        heading: the text before an answer without a call.
        strict: calls can be generated under their schema.
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
    separator: tuple[str, ...] = ("[ARGS]",)
    naming: str = "NAME"
    numbered: bool = False
    layout: Layout | None = None
    notation: Literal["", "python", "gemma"] = ""
    record: Literal["name", "tool_name", "keyed"] = "name"
    heading: tuple[str, ...] = ()
    strict: bool = True


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
    values = values_of(text.strip())
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
    position = len(text) if is_json(text) else 0
    while (start := text.find(_OPEN, position)) >= 0:
        content.append(text[position:start])
        begin = start + len(_OPEN)
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        try:
            value, position = json_at(text, begin)
            end = _HERMES_END.match(text, position)
            if end is None:
                raise ValueError(f"unexpected text after it: {text[position:][:40]!r}")
        except ValueError as error:
            return unreadable(content, calls, f"{text[begin:][:200]!r} is not JSON ({error})")
        calls.append(call_of(value, text[begin:position]))
        position = end.end()
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


_read_functions = functools.partial(
    read_named, opening=re.compile(r"<function=([^>\n]+)>"), closing=re.compile(r"\s*(?:</function>|\Z)")
)


def read_llama(text: str) -> Reading:
    """Parse `{"name": ..., "parameters": {...}}`, optionally after `<|python_tag|>`, several separated by `;`."""
    head, tag, tail = text.partition("<|python_tag|>")
    if not tag or is_json(text):
        return read_plain(text) if "<function=" not in text or is_json(text) else _read_functions(text)
    builtin = python_calls(tail) if ".call(" in tail else None
    if builtin is not None:
        return Reading(head.strip(), tuple(builtin))
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
    if not mark or is_json(text):
        return Reading(text)
    calls: list[ToolCall] = []
    position = gap(text, len(head))
    while position < len(text):
        if text.startswith(_CALLS, position):
            position = gap(text, position + len(_CALLS))
            continue
        try:
            found = None if text[position] in "[{" else _ARGS.match(text, position)
            if found is None and text[position] not in "[{":
                raise ValueError("no name")
            value, end = json_at(text, found.end() if found else position)
        except ValueError as error:
            reason = "is not JSON" if text[position] in "[{" else "can't be read"
            return unreadable([head], calls, f"{text[position:][:200]!r} {reason} ({error})")
        if found is not None:
            calls.append(call_of({"name": found[1], "arguments": value}, text[position:end]))
        else:
            calls += [call_of(one, json.dumps(one)) for one in (value if isinstance(value, list) else [value])]
        position = gap(text, end)
    return Reading(head.strip(), tuple(calls))


_read_deepseek = functools.partial(
    read_named,
    opening=re.compile(
        r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>"
        r"(?:function<｜tool▁sep｜>([^\n<]+)\n```json\n|([^\n<]+)<｜tool▁sep｜>)"
    ),
    closing=re.compile(r"\s*(?:```)?\s*(?:<｜tool▁call▁end｜>|\Z)\s*(?:<｜tool▁calls▁end｜>)?\s*"),
)
_read_kimi = functools.partial(
    read_named,
    opening=re.compile(
        r"(?:<\|tool_calls_section_begin\|>\s*)?<\|tool_call_begin\|>\s*(?:functions\.)?([\w.-]+?)(?::\d+)?\s*"
        r"<\|tool_call_argument_begin\|>"
    ),
    closing=re.compile(r"\s*(?:<\|tool_call_end\|>|\Z)\s*(?:<\|tool_calls_section_end\|>)?\s*"),
)
_read_channels = functools.partial(
    read_named,
    opening=re.compile(
        r"(?:<\|start\|>assistant)?\s*(?:to=(?:functions\.)?([\w.-]+)\s*<\|channel\|>\s*(?:commentary|analysis)"
        r"|<\|channel\|>\s*(?:commentary|analysis)\s+to=(?:functions\.)?([\w.-]+))"
        r"\s*(?:<\|constrain\|>)?\s*\w*\s*<\|message\|>"
    ),
    closing=re.compile(r"\s*(?:<\|call\|>|<\|end\|>|\Z)"),
)


def _read_harmony(text: str) -> Reading:
    """Parse calls in the commentary channel, after other messages of the turn."""
    read = _read_channels(text)
    if not read.calls:
        return replace(read, content=read.content.removeprefix("<|channel|>final<|message|>"))
    # What is left of a message before the call is its marks.
    return replace(read, content=re.sub(r"<\|(?:start|end|message|channel)\|>", "", read.content).strip())


_read_solar = functools.partial(
    read_named,
    opening=re.compile(
        r"(?:<\|tool_calls\|>\s*)?<\|tool_call:begin\|>\s*\w*\s*<\|tool_call:name\|>([^<\n]+)<\|tool_call:args\|>"
    ),
    closing=re.compile(r"\s*(?:<\|tool_call:end\|>|\Z)\s*(?:<\|calls\|>)?"),
)


def _listed(opening: str, closing: str) -> Callable[[str], Reading]:
    return functools.partial(read_listed, opening=re.compile(re.escape(opening)), closing=closing)


def _json_family(
    name: str,
    opening: str,
    closing: str,
    *,
    marks: tuple[str, ...] = (),
    key: Literal["arguments", "parameters"] = "arguments",
    record: Literal["name", "tool_name", "keyed"] = "name",
    strict: bool = True,
) -> Family:
    """A family that writes a JSON list of calls between two marks."""
    keys: dict[str, Any] = {"name": "add", "arguments": {"a": 1}}
    if record == "tool_name":
        keys = {"tool_call_id": "0", "tool_name": "add", key: {"a": 1}}
    elif record == "keyed":
        keys = {"add": {"a": 1}}
    return Family(
        name,
        f"{opening}[{json.dumps(keys)}]{closing}",
        marks=marks or (opening,),
        read=_listed(opening, closing),
        controls=(opening, closing) if closing else (opening,),
        before=(opening, "["),
        between=(", ",),
        after=("]", closing) if closing else ("]",),
        prose=_without(opening),
        key=key,
        record=record,
        strict=strict,
    )


def _without(mark: str) -> str:
    """A Lark regex of texts without a mark."""
    escaped = re.escape(mark).replace("/", r"\/")
    return rf"/(.|\n)+/ & ~/(.|\n)*{escaped}(.|\n)*/"


_NO_TAG = r"/(.|\n)+/ & ~/(.|\n)*<tool_call>(.|\n)*/"

# The first row whose marks are all in the template is used.
FAMILIES: tuple[Family, ...] = (
    Family(
        "qwen-xml",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
        marks=("<tool_call>", "<function=", "<parameter="),
        read=functools.partial(read_tagged, tags=tagged.QWEN_XML),
        controls=("<tool_call>", "</tool_call>"),
        untyped=True,
        opening=("<tool_call>", "\n"),
        between=("\n",),
        closing=("\n", "</tool_call>"),
        layout=Layout(
            "<function=NAME>\n",
            "<parameter=NAME>\n",
            "\n</parameter>",
            "</parameter>",
            "<tool_call>",
            tail="</function>",
        ),
        prose=_NO_TAG,
    ),
    Family(
        "glm",
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        marks=("<tool_call>", "<arg_key>"),
        read=functools.partial(read_tagged, tags=tagged.GLM),
        controls=("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        untyped=True,
        opening=("<tool_call>",),
        between=("\n",),
        closing=("</tool_call>",),
        layout=Layout("NAME\n", "<arg_key>NAME</arg_key>\n<arg_value>", "</arg_value>", "</arg_value>", "<tool_call>"),
        prose=_NO_TAG,
    ),
    Family(
        "seed",
        "<seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
        marks=("<seed:tool_call>", "<function="),
        read=functools.partial(read_tagged, tags=tagged.SEED),
        controls=("<seed:tool_call>", "</seed:tool_call>"),
        untyped=True,
        opening=("<seed:tool_call>", "\n"),
        between=("\n",),
        closing=("\n", "</seed:tool_call>"),
        layout=Layout(
            "<function=NAME>\n",
            "<parameter=NAME>",
            "</parameter>",
            "</parameter>",
            "<seed:tool_call>",
            tail="</function>",
        ),
        prose=_without("<seed:tool_call>"),
    ),
    Family(
        "minimax",
        '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">1</parameter>\n</invoke>\n</minimax:tool_call>',
        marks=("<minimax:tool_call>", "<invoke"),
        read=functools.partial(read_tagged, tags=tagged.MINIMAX),
        controls=("<minimax:tool_call>", "</minimax:tool_call>"),
        untyped=True,
        before=("<minimax:tool_call>", "\n"),
        closing=("\n",),
        after=("</minimax:tool_call>",),
        layout=Layout(
            '<invoke name="NAME">\n',
            '<parameter name="NAME">',
            "</parameter>",
            "</parameter>",
            "<invoke",
            tail="</invoke>",
        ),
        prose=_without("<minimax:tool_call>"),
    ),
    Family(
        "dsml",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        marks=("｜DSML｜",),
        read=functools.partial(read_tagged, tags=tagged.DSML),
        controls=("｜DSML｜",),
        untyped=True,
        before=("<｜DSML｜function_calls>\n",),
        closing=("\n",),
        after=("</｜DSML｜function_calls>",),
        layout=Layout(
            '<｜DSML｜invoke name="NAME">\n',
            '<｜DSML｜parameter name="NAME" string="KIND">',
            "</｜DSML｜parameter>",
            "｜DSML｜",
            "｜DSML｜",
            tail="</｜DSML｜invoke>",
        ),
        prose=_without("｜DSML｜"),
    ),
    Family(
        "harmony",
        '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}<|call|>',
        marks=("<|channel|>", "<|call|>"),
        read=_read_harmony,
        controls=("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|end|>"),
        alone=True,
        opening=("<|channel|>", "commentary to="),
        named=True,
        naming="functions.NAME",
        separator=(" ", "<|constrain|>", "json", "<|message|>"),
        heading=("<|channel|>", "final", "<|message|>"),
        prose=r"/(.|\n)+/",
    ),
    Family(
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        '{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        marks=("<｜tool▁calls▁begin｜>", "```json"),
        read=_read_deepseek,
        controls=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        before=("<｜tool▁calls▁begin｜>",),
        between=("\n",),
        after=("<｜tool▁calls▁end｜>",),
        opening=("<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>"),
        closing=("\n```", "<｜tool▁call▁end｜>"),
        named=True,
        separator=("\n```json\n",),
        prose=_without("<｜tool▁calls▁begin｜>"),
    ),
    Family(
        "deepseek-v3.1",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        marks=("<｜tool▁calls▁begin｜>",),
        read=_read_deepseek,
        controls=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        before=("<｜tool▁calls▁begin｜>",),
        after=("<｜tool▁calls▁end｜>",),
        opening=("<｜tool▁call▁begin｜>",),
        closing=("<｜tool▁call▁end｜>",),
        named=True,
        separator=("<｜tool▁sep｜>",),
        prose=_without("<｜tool▁calls▁begin｜>"),
    ),
    Family(
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
        '{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
        marks=("<|tool_calls_section_begin|>",),
        read=_read_kimi,
        controls=(
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
        before=("<|tool_calls_section_begin|>",),
        opening=("<|tool_call_begin|>",),
        closing=("<|tool_call_end|>",),
        after=("<|tool_calls_section_end|>",),
        named=True,
        naming="functions.NAME:",
        numbered=True,
        separator=("<|tool_call_argument_begin|>",),
        prose=_without("<|tool_calls_section_begin|>"),
    ),
    Family(
        "gemma4",
        "<|tool_call>call:add{a:1}<tool_call|>",
        marks=("<|tool_call>", "<tool_call|>"),
        read=read_gemma4,
        controls=("<|tool_call>", "<tool_call|>", '<|"|>'),
        opening=("<|tool_call>",),
        closing=("<tool_call|>",),
        notation="gemma",
        prose=_without("<|tool_call>"),
    ),
    *(
        Family(
            "lfm2",
            "<|tool_call_start|>[add(a=1)]<|tool_call_end|>",
            marks=(mark,),
            read=functools.partial(read_pythonic, opening="<|tool_call_start|>", closing="<|tool_call_end|>"),
            controls=("<|tool_call_start|>", "<|tool_call_end|>"),
            before=("<|tool_call_start|>", "["),
            between=(", ",),
            after=("]", "<|tool_call_end|>"),
            notation="python",
            prose=_without("<|tool_call_start|>"),
        )
        for mark in ("<|tool_call_start|>", "<|tool_list_start|>", "List of tools: [")
    ),
    Family(
        "solar",
        "<|tool_calls|><|tool_call:begin|>call1<|tool_call:name|>add"
        '<|tool_call:args|>{"a": 1}<|tool_call:end|><|calls|>',
        marks=("<|tool_call:begin|>",),
        read=_read_solar,
        controls=(
            "<|tool_calls|>",
            "<|tool_call:begin|>",
            "<|tool_call:name|>",
            "<|tool_call:args|>",
            "<|tool_call:end|>",
            "<|calls|>",
        ),
        before=("<|tool_calls|>",),
        opening=("<|tool_call:begin|>", "call1", "<|tool_call:name|>"),
        closing=("<|tool_call:end|>",),
        after=("<|calls|>",),
        named=True,
        separator=("<|tool_call:args|>",),
        prose=_without("<|tool_calls|>"),
    ),
    _json_family("command-r", "<|START_ACTION|>", "<|END_ACTION|>", key="parameters", record="tool_name"),
    _json_family("nemotron", "<TOOLCALL>", "</TOOLCALL>"),
    _json_family("granite", "<|tool_call|>", ""),
    _json_family("gigachat", "<|function_call|>", "", strict=False),
    _json_family("apertus", "<|tools_prefix|>", "<|tools_suffix|>", record="keyed"),
    _json_family("apriel", "<tool_calls>", "</tool_calls>"),
    _json_family("functools", "functools", "", marks=("functools[",)),
    Family(
        "functions",
        '<function=add>{"a": 1}</function>',
        marks=("<function=", "</function>"),
        absent=("<tool_call>", "<parameter="),
        read=_read_functions,
        opening=("<function=",),
        closing=("</function>",),
        named=True,
        separator=(">",),
        prose=_without("<function="),
    ),
    Family(
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
        marks=("<tool_call>",),
        absent=("<invoke",),
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
    known = [
        family
        for family in FAMILIES
        if template
        and "tools" in template
        and all(mark in template for mark in family.marks)
        and not any(mark in template for mark in family.absent)
    ]
    if not known:
        raise UnsupportedError(
            f"{model} doesn't support tools: its chat template has no place for them.",
            "Use the generic format (tool_format='generic'), or load a model that does (Qwen, Llama 3, Mistral).",
        )
    marks = unknown_marks(template or "") if known[0].name == "plain" else ()
    marks = marks or _unreadable_marks(template or "", known[0])
    if marks:
        raise UnsupportedError(
            f"{model} writes tool calls in a format that llmlab can't read: {', '.join(marks)} in its chat template.",
            "Use the generic format: tool_format='generic'.",
        )
    return known[0]


_CALL_MARK = re.compile(
    r"<[|/]?[^<>\s{}'\"|]{0,20}(?:tool|function|invoke|call|action)[^<>\s{}'\"]{0,30}>|\[[A-Z_]*(?:TOOL|CALL)[A-Z_]*\]"
    r"|<(?:function|invoke|call)\s+\w+=|\bfunctools\b|>>>",
    re.IGNORECASE,
)
# Marks of definitions and of results, which aren't parsed.
_OTHER_MARK = re.compile(
    r"tools>|tools\|>|_tools|tool\|>|<tool>|</tool>|response|result|output|return|AVAILABLE|definition|declaration"
    r"|description|schema|system|list|callable|example|instructions",
    re.IGNORECASE,
)


def unknown_marks(template: str) -> tuple[str, ...]:
    """Texts in a chat template that look like marks of a tool call."""
    found = dict.fromkeys(one for one in _CALL_MARK.findall(template) if not _OTHER_MARK.search(one))
    return tuple(found)[:6]


_PROBE, _VALUE = "zprobeq", "Zvalueq"
_ANY_MARK = re.compile(r"<[^<>\s]{1,60}>|\[[A-Z_]{2,30}\]")


@functools.lru_cache(maxsize=64)
def written(template: str) -> str:
    """A call as a chat template writes it in an assistant's turn, with what surrounds it; "" if it writes none."""
    tool = {"name": _PROBE, "description": "d", "parameters": {"type": "object", "properties": {}}}
    call = ToolCall(_PROBE, {"text": _VALUE}, "call00001").as_dict()
    turns = [Message("user", "hi"), Message("assistant", "", (call,))]
    try:
        text = render(
            template, turns, special_tokens={}, tools=[{"type": "function", "function": tool}],
            add_generation_prompt=False,
        )  # fmt: skip
    except BadInputError:
        return ""
    place = text.rfind(_VALUE)
    return text[max(place - 300, 0) : place + 200] if place >= 0 else ""


def _unreadable_marks(template: str, family: Family) -> tuple[str, ...]:
    """The marks of a call that a template writes and the plain format can't read."""
    text = written(template) if family.name == "plain" else ""
    start = text.find("{", max(text.rfind(f'"{_PROBE}"') - 20, 0))
    if not text or (f'"{_PROBE}"' in text and start >= 0 and json_is_call(text, start)):
        return ()
    return tuple(dict.fromkeys(_ANY_MARK.findall(text)))[-6:] or (text[-200:].strip(),)


def json_is_call(text: str, start: int) -> bool:
    """Whether a call as a JSON object starts at a position."""
    try:
        return _is_call(json_at(text, start)[0])
    except ValueError:
        return False


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
