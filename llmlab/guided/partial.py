"""Parse JSON text while it is still being generated."""

from __future__ import annotations

import json
from typing import Any

_LITERALS = ("true", "false", "null")


def partial_json(text: str) -> Any:
    """Parse the beginning of a JSON text.

    Open strings, arrays and objects are closed; a key without a value, and a number or literal that may still be
    incomplete, are left out.

    Args:
        text: the text so far.

    Returns:
        The value so far; None if there is none yet.
    """
    closed = close_json(text)
    if closed is None:
        return None
    try:
        return json.loads(closed)
    except (ValueError, RecursionError):
        return None


def close_json(text: str) -> str | None:
    """The shortest valid JSON text with all complete values of a beginning; None if there are none yet."""
    stack: list[str] = []
    in_string = escaped = False
    # Where the text can be cut and closed: the length, and the closing brackets.
    good: tuple[int, str] | None = None
    is_key = False
    scalar = False
    for at, char in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
                if not is_key:
                    good = (at + 1, _closers(stack))
            continue
        if char == '"':
            in_string = True
            is_key = bool(stack) and stack[-1] == "{" and _after(text[:at]) in "{,"
        elif char in "{[":
            stack.append(char)
            good = (at + 1, _closers(stack))
        elif char in "}]":
            if not stack:
                break
            if scalar:
                scalar = False
            stack.pop()
            good = (at + 1, _closers(stack))
        elif char == ",":
            good = (at, _closers(stack))
            scalar = False
        elif char not in ": \t\r\n":
            scalar = True
    if in_string and not is_key:
        return _string_so_far(text, escaped=escaped) + '"' + _closers(stack)
    if scalar and not in_string and (literal := _final_literal(text)):
        return literal + _closers(stack)
    return text[: good[0]] + good[1] if good is not None else None


def _after(text: str) -> str:
    stripped = text.rstrip()
    return stripped[-1] if stripped else "{"


def _closers(stack: list[str]) -> str:
    return "".join("}" if char == "{" else "]" for char in reversed(stack))


def _string_so_far(text: str, *, escaped: bool) -> str:
    """The text without an incomplete escape at its end."""
    if escaped:
        return text[:-1]
    tail = text[-6:]
    at = tail.rfind("\\u")
    if at >= 0 and len(tail) - at < 6 and not (at and tail[at - 1] == "\\" and tail[at - 2 : at] != "\\\\"):
        return text[: len(text) - len(tail) + at]
    return text


def _final_literal(text: str) -> str | None:
    for literal in _LITERALS:
        if text.rstrip().endswith(literal):
            return text.rstrip()
    return None
