"""Reads call formats that contain JSON, Gemma's notation, or a Python call."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from llmlab.tool_calls.reading import Reading, call_of, gap, is_json, json_at, unreadable
from llmlab.types import ToolCall


def read_listed(text: str, opening: re.Pattern[str], closing: str) -> Reading:
    """Parse JSON calls, or lists of them, between two marks, after any text.

    Args:
        text: the model's text.
        opening: the mark before the calls.
        closing: the mark after them, which may be missing at the end of the text; "" if there is none.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    position = len(text) if is_json(text) else 0
    while (found := opening.search(text, position)) is not None:
        content.append(text[position : found.start()])
        start = position = gap(text, found.end())
        while position < len(text) and text[position] in "[{":
            try:
                value, position = json_at(text, position)
            except ValueError as error:
                return unreadable(content, calls, f"{text[position:][:200]!r} is not JSON ({error})")
            calls += [call_of(_plain(one), json.dumps(one)) for one in (value if isinstance(value, list) else [value])]
            position = gap(text, position)
        if position == start:
            return unreadable(content, calls, f"{text[start:][:200]!r} is not a JSON object or list")
        if closing and text.startswith(closing, position):
            position += len(closing)
        elif position < len(text):
            return unreadable(content, calls, f"unexpected text after a call: {text[position:][:40]!r}")
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


def _plain(value: Any) -> Any:
    """Apertus writes `{NAME: {...}}`."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, arguments),) = value.items()
        if isinstance(arguments, dict) and name not in ("function", "arguments", "parameters"):
            return {"name": name, "arguments": arguments}
    return value


def read_named(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> Reading:
    """Parse calls whose name precedes their JSON arguments, after any text.

    Args:
        text: the model's text.
        opening: everything up to the arguments; one of its groups is the name.
        closing: everything after them.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    position = len(text) if is_json(text) else 0
    while (found := opening.search(text, position)) is not None:
        content.append(text[position : found.start()])
        name = next(group for group in found.groups() if group is not None).strip()
        begin = gap(text, found.end())
        try:
            value, position = json_at(text, begin)
            end = closing.match(text, position)
            if end is None:
                raise ValueError(f"unexpected text after it: {text[position:][:40]!r}")
        except ValueError as error:
            return unreadable(
                content, calls, f"the arguments of {name:.60}: {text[begin:][:200]!r} is not JSON ({error})"
            )
        calls.append(call_of({"name": name, "arguments": value}, text[begin:position]))
        position = end.end()
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


# -- Gemma 4 -------------------------------------------------------------------------------------------

_GEMMA_CALL = re.compile(r"<\|tool_call>\s*call:(?P<name>[^\s{]+)\{")
_GEMMA_QUOTE = '<|"|>'
_GEMMA_KEY = re.compile(r'\s*(?:<\|"\|>(?P<quoted>.*?)<\|"\|>|(?P<bare>[^\s:,{}\[\]<]+))\s*:', re.DOTALL)
_GEMMA_PLAIN = re.compile(r"[^,{}\[\]<]+")


def read_gemma4(text: str) -> Reading:
    """Parse `<|tool_call>call:NAME{key:<|"|>text<|"|>,n:1}<tool_call|>`, after any text."""
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find("<|tool_call>", position)) >= 0:
        content.append(text[position:start])
        found = _GEMMA_CALL.match(text, start)
        if found is None:
            return unreadable(content, calls, f"{text[start + 12 :][:200]!r} is not call:NAME{{...}}")
        try:
            arguments, position = _gemma_object(text, found.end())
        except (ValueError, RecursionError) as error:
            return unreadable(content, calls, f"the arguments of {found['name']:.60} can't be read ({error})")
        calls.append(ToolCall(found["name"], arguments))
        rest = text[position:]
        if rest.startswith("<tool_call|>"):
            position += len("<tool_call|>")
        elif rest.strip() and not rest.startswith("<|tool_call>"):
            return unreadable(content, calls[:-1], f"unexpected text after {found['name']:.60}: {rest[:40]!r}")
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


def _gemma_object(text: str, position: int) -> tuple[dict[str, Any], int]:
    out: dict[str, Any] = {}
    while not text.startswith("}", position):
        found = _GEMMA_KEY.match(text, position)
        if found is None:
            raise ValueError(f"no name at {text[position:][:40]!r}")
        key = found["quoted"] if found["quoted"] is not None else found["bare"]
        if key in out:
            raise ValueError(f"{key:.60} is repeated")
        out[key], position = _gemma_value(text, found.end())
        position = _gemma_comma(text, position, "}")
    return out, position + 1


def _gemma_comma(text: str, position: int, end: str) -> int:
    if text.startswith(",", position):
        return position + 1
    if not text.startswith(end, position):
        raise ValueError(f"unexpected text: {text[position:][:40]!r}")
    return position


def _gemma_value(text: str, position: int) -> tuple[Any, int]:
    if text.startswith(_GEMMA_QUOTE, position):
        begin = position + len(_GEMMA_QUOTE)
        end = text.find(_GEMMA_QUOTE, begin)
        if end < 0:
            raise ValueError("a text isn't closed")
        return text[begin:end], end + len(_GEMMA_QUOTE)
    if text.startswith("{", position):
        return _gemma_object(text, position + 1)
    if text.startswith("[", position):
        out, position = list[Any](), position + 1
        while not text.startswith("]", position):
            value, position = _gemma_value(text, position)
            out.append(value)
            position = _gemma_comma(text, position, "]")
        return out, position + 1
    found = _GEMMA_PLAIN.match(text, position)
    if found is None:
        raise ValueError(f"no value at {text[position:][:40]!r}")
    plain = found[0].strip()
    if plain in ("None", "null"):  # the template writes None
        return None, found.end()
    try:
        return json.loads(plain), found.end()
    except ValueError:
        raise ValueError(f"{plain[:40]!r} is not a value") from None


# -- a Python call -------------------------------------------------------------------------------------

_WORDS = {"true": True, "false": False, "null": None}


def read_pythonic(text: str, opening: str, closing: str) -> Reading:
    """Parse `[f(a=1, b="x"), g()]` between two marks, after any text."""
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        content.append(text[position:start])
        begin = start + len(opening)
        found = _python_calls(text, begin, closing)
        if found is None:
            return unreadable(content, calls, f"{text[begin:][:200]!r} is not a list of calls")
        calls += found[0]
        position = found[1]
    return Reading("".join([*content, text[position:]]).strip(), tuple(calls)) if calls else Reading(text)


def _python_calls(text: str, begin: int, closing: str) -> tuple[list[ToolCall], int] | None:
    """The calls from a position to the first closing mark that isn't in one of their strings, and where that ends."""
    at = begin
    while True:
        at = text.find(closing, at)
        end = at if at >= 0 else len(text)
        calls = python_calls(text[begin:end])
        if calls is not None:
            return calls, end + (len(closing) if at >= 0 else 0)
        if at < 0:
            return None
        at += 1


def python_calls(text: str) -> list[ToolCall] | None:
    """The calls in a Python expression; None if it is anything else."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    calls = []
    for node in nodes:
        if not isinstance(node, ast.Call) or node.args or any(one.arg is None for one in node.keywords):
            return None
        try:
            values = {str(one.arg): _literal(one.value) for one in node.keywords}
        except (ValueError, TypeError, RecursionError):
            return None
        calls.append(ToolCall(ast.unparse(node.func).removesuffix(".call"), values))
    return calls or None


def _literal(node: ast.expr) -> Any:
    class Words(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(_WORDS[node.id]) if node.id in _WORDS else node

    return ast.literal_eval(Words().visit(node))
