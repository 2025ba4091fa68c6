"""What token masks can't see in a JSON text: repeated keys, keys in another spelling, and endless numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from decimal import Decimal
from typing import Any, Literal

Fault = Literal["", "key", "escape", "digits"]

DIGITS = 24
"""The most digits of a number, beyond those that the schema's own numbers have. `x-guidance: {"max_digits": 0}` in the
schema lifts the limit."""

_QUOTE, _BACKSLASH = 34, 92
_DIGITS = frozenset(b"0123456789")
_IN_NUMBER = frozenset(b"0123456789.eE+-")
_BLANK = frozenset(b" \t\r\n")


class Scan:
    """Follows a JSON text token by token. `fault` looks at a token without taking it.

    Args:
        max_digits: the most digits of a number; 0: no limit.
    """

    def __init__(self, max_digits: int = DIGITS) -> None:
        self._limit = max_digits
        # One entry per open object (the keys so far) or array (None).
        self._stack: list[set[str] | None] = []
        self._key = b""  # the open string's content, as written
        self._in_string = self._is_key = self._escaped = False
        self._expects_key = False
        self._digits = 0
        self._before = 0
        self._in_number = False
        self._added: list[tuple[set[str], str]] = []

    def fault(self, piece: bytes) -> Fault:
        """Why a token can't come next; "" if it can."""
        before = self._snapshot()
        found = self._run(piece)
        self._restore(before)
        return found

    def feed(self, piece: bytes) -> None:
        """Take a token."""
        self._run(piece)
        self._added.clear()

    def copy(self) -> Scan:
        """Another scan in the same state."""
        return copy.deepcopy(self)

    @property
    def in_string(self) -> bool:
        """Whether a string is open."""
        return self._in_string

    def open_string(self) -> tuple[str, Collection[str] | None] | None:
        """The content so far of the open string, with the object's other keys if it is a key; None if none is open."""
        if not self._in_string or self._escaped:
            return None
        keys = self._stack[-1] if self._is_key and self._stack else None
        return _decoded(self._key), keys

    def _snapshot(self) -> tuple[Any, ...]:
        self._added = []
        return (
            list(self._stack), self._key, self._in_string, self._is_key, self._escaped, self._expects_key, self._digits,
            self._before, self._in_number,
        )  # fmt: skip

    def _restore(self, before: tuple[Any, ...]) -> None:
        for keys, key in self._added:
            keys.discard(key)
        (
            self._stack, self._key, self._in_string, self._is_key, self._escaped, self._expects_key, self._digits,
            self._before, self._in_number,
        ) = before  # fmt: skip

    def _run(self, piece: bytes) -> Fault:
        for byte in piece:
            if self._in_string:
                found = self._string(byte)
                if found:
                    return found
                continue
            if byte in _IN_NUMBER and (self._in_number or byte == 45 or byte in _DIGITS):
                if not self._in_number:
                    self._in_number, self._digits = True, 0
                if byte in _DIGITS:
                    self._digits += 1
                    if self._limit and self._digits > self._limit and self._before in _DIGITS:
                        return "digits"
                elif self._limit and self._digits >= self._limit and byte == 46:
                    return "digits"
                self._before = byte
                continue
            self._in_number = False
            self._before = byte
            if byte == _QUOTE:
                self._in_string, self._escaped = True, False
                self._is_key = self._expects_key
                self._key = b""
            elif byte == 123:
                self._stack.append(set())
                self._expects_key = True
            elif byte == 91:
                self._stack.append(None)
                self._expects_key = False
            elif byte in (125, 93):
                if self._stack:
                    self._stack.pop()
                self._expects_key = False
            elif byte == 44:
                self._expects_key = bool(self._stack) and self._stack[-1] is not None
            elif byte == 58:
                self._expects_key = False
        return ""

    def _string(self, byte: int) -> Fault:
        if self._escaped:
            self._escaped = False
            self._key += bytes((byte,))
            return "escape" if self._is_key and byte in b"u/" else ""
        if byte == _BACKSLASH:
            self._escaped = True
            self._key += b"\\"
        elif byte == _QUOTE:
            self._in_string = False
            keys = self._stack[-1] if self._stack else None
            if self._is_key and keys is not None:
                key = _decoded(self._key)
                if key in keys:
                    return "key"
                keys.add(key)
                self._added.append((keys, key))
            return ""
        self._key += bytes((byte,))
        return ""


def _decoded(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def digit_limit(schema: Any) -> int:
    """The most digits of a number under a schema; 0: no limit."""
    own = schema.get("x-guidance") if isinstance(schema, dict) else None
    wanted = own.get("max_digits", DIGITS) if isinstance(own, dict) else DIGITS
    if not isinstance(wanted, int) or wanted <= 0:
        return 0
    longest = 0
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, int | float) and not isinstance(one, bool):
            longest = max(longest, sum(map(str.isdigit, format(Decimal(repr(one)), "f"))))
    return wanted + longest
