"""Translate GBNF (llama.cpp's grammar format) to Lark for the token masks, matched character by character.

The mask library's Lark grammars have a greedy lexer: `word "ing"` with `word ::= [a-z]+` would never match. So each
terminal is one character, or the grammar becomes a single regex if no rule is recursive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmlab.guided.chars import ALL, EmptyClassError, Node, Ranges, as_ranges, others, rust, written

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COUNT = re.compile(r"\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}")
_BLANK = re.compile(r"(?:[ \t]|#[^\n]*)*")
_BLANKS = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_ESCAPES = {"n": 10, "r": 13, "t": 9, "\\": 92, '"': 34, "[": 91, "]": 93}
_HEX = {"x": 2, "u": 4, "U": 8}
_MOST_REPEATS = 20_000
# Limit of the single regex's size: it repeats a shared rule at each use.
_LONGEST = 50_000


class GbnfError(ValueError):
    """Invalid GBNF; the message has the line and column."""


class _Reader:
    """Parses a grammar into its rules.

    Args:
        text: the grammar.
    """

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.at = 0
        self.rules: dict[str, Node] = {}

    def read(self) -> dict[str, Node]:
        self._skip(_BLANKS)
        while self.at < len(self.text):
            name = self._match(_NAME)
            if name is None:
                raise self._error("expected a rule name")
            self._skip(_BLANK)
            if not self._take("::="):
                raise self._error(f"expected ::= after {name[0]}")
            self._skip(_BLANKS)
            self.rules[name[0]] = self._alternatives(nested=False)
            if self.at < len(self.text) and self.text[self.at] != "\n":
                raise self._error(f"unexpected {self.text[self.at]!r}")
            self._skip(_BLANKS)
        return self.rules

    def _error(self, problem: str) -> GbnfError:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - self.text.rfind("\n", 0, self.at)
        return GbnfError(f"{problem}, at line {line}, column {column}")

    def _skip(self, blanks: re.Pattern[str]) -> None:
        found = blanks.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def _take(self, what: str) -> bool:
        found = self.text.startswith(what, self.at)
        self.at += len(what) if found else 0
        return found

    def _alternatives(self, *, nested: bool) -> Node:
        branches = [self._sequence(nested=nested)]
        while self._take("|"):
            self._skip(_BLANKS)
            branches.append(self._sequence(nested=nested))
        return branches[0] if len(branches) == 1 else Node("alt", tuple(branches))

    def _sequence(self, *, nested: bool) -> Node:
        blanks = _BLANKS if nested else _BLANK
        parts: list[Node] = []
        while (atom := self._atom()) is not None:
            self._skip(blanks)
            parts.append(self._repeated(atom, blanks))
        return Node("seq", tuple(parts))

    def _atom(self) -> Node | None:
        if self._take('"'):
            return self._literal()
        if self._take("["):
            return Node("chars", ranges=self._class())
        if self._take("."):
            return Node("chars", ranges=ALL)
        if self._take("("):
            self._skip(_BLANKS)
            inner = self._alternatives(nested=True)
            if not self._take(")"):
                raise self._error("expected )")
            return inner
        if self.text.startswith(("<", "!<"), self.at):
            raise self._error("tokens (<…>) aren't supported: grammars here describe text")
        name = self._match(_NAME)
        return Node("ref", name=name[0]) if name else None

    def _repeated(self, node: Node, blanks: re.Pattern[str]) -> Node:
        least: int
        most: int | None
        while True:
            counted = _COUNT.match(self.text, self.at)
            if self._take("*"):
                least, most = 0, None
            elif self._take("+"):
                least, most = 1, None
            elif self._take("?"):
                least, most = 0, 1
            elif counted:
                least = int(counted[1])
                most = (int(counted[3]) if counted[3] else None) if counted[2] else least
                if most is not None and most < least:
                    raise self._error(f"the counts of {counted[0]} are in the wrong order")
                if max(least, most or 0) > _MOST_REPEATS:
                    raise self._error(f"{counted[0]} repeats more than {_MOST_REPEATS:,} times")
                self.at = counted.end()
            else:
                return node
            node = Node("rep", (node,), least=least, most=most)
            self._skip(blanks)

    def _literal(self) -> Node:
        start = self.at
        codes: list[int] = []
        while not self._take('"'):
            codes.append(self._char(start, '"'))
        return Node("seq", tuple(Node("chars", ranges=as_ranges([(code, code)])) for code in codes))

    def _class(self) -> Ranges:
        start = self.at
        negated = self._take("^")
        pairs: list[tuple[int, int]] = []
        while not self._take("]"):
            first = last = self._char(start, "]")
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                last = self._char(start, "]")
            if last < first:
                raise self._error(f"the range {chr(first)}-{chr(last)} is in the wrong order")
            pairs.append((first, last))
        return others(as_ranges(pairs)) if negated else as_ranges(pairs)

    def _char(self, start: int, closing: str) -> int:
        if self.at >= len(self.text):
            self.at = start
            raise self._error(f"missing the closing {closing}")
        sign = self.text[self.at]
        self.at += 1
        if sign != "\\":
            return ord(sign)
        escape = self.text[self.at : self.at + 1]
        if escape in _HEX:
            digits = self.text[self.at + 1 : self.at + 1 + _HEX[escape]]
            if len(digits) != _HEX[escape] or not re.fullmatch("[0-9A-Fa-f]+", digits) or int(digits, 16) > 0x10FFFF:
                raise self._error(f"\\{escape} needs {_HEX[escape]} hex digits of a code point")
            self.at += 1 + _HEX[escape]
            return int(digits, 16)
        if escape not in _ESCAPES or not escape:
            raise self._error(f"\\{escape} isn't a GBNF escape")
        self.at += 1
        return _ESCAPES[escape]


def _parts(node: Node) -> Iterator[Node]:
    yield node
    for part in node.parts:
        yield from _parts(part)


def lark(text: str) -> str:
    """Translate a GBNF grammar to an equivalent Lark grammar.

    Args:
        text: the grammar, with a rule `root`.

    Raises:
        GbnfError: it is invalid, refers to an undefined rule, or no text satisfies it.
    """
    try:
        rules = _Reader(text).read()
        for name, rule in rules.items():
            for part in _parts(rule):
                if part.kind == "ref" and part.name not in rules:
                    raise GbnfError(f"the rule {part.name!r}, used in {name}, is not defined")
        if "root" not in rules:
            raise GbnfError("there is no rule root")
        whole = _flat(rules["root"], rules, ("root",), [_LONGEST])
        if whole is not None:
            return f"%llguidance {{}}\n\nstart: WHOLE\nWHOLE: /{written(whole, rust)}/\n"
        return _grammar(rules)
    except EmptyClassError as error:
        raise GbnfError(str(error)) from None
    except RecursionError:
        raise GbnfError("it is nested too deeply") from None


def _flat(node: Node, rules: dict[str, Node], path: tuple[str, ...], left: list[int]) -> Node | None:
    """A node with its references expanded; None if a rule is recursive or the result gets too long."""
    left[0] -= 2 + 8 * len(node.ranges)
    if left[0] < 0:
        return None
    if node.kind == "ref":
        return None if node.name in path else _flat(rules[node.name], rules, (*path, node.name), left)
    parts: list[Node] = []
    for part in node.parts:
        flat = _flat(part, rules, path, left)
        if flat is None:
            return None
        parts.append(flat)
    return Node(node.kind, tuple(parts), node.ranges, node.least, node.most)


def _grammar(rules: dict[str, Node]) -> str:
    """The rules with one-character terminals; rules are numbered, since Lark gives some names and cases a meaning."""
    numbers = {name: f"r{place}" for place, name in enumerate(rules)}
    terminals: dict[Ranges, str] = {}

    def lark_of(node: Node) -> str:
        if node.kind == "ref":
            return numbers[node.name]
        if node.kind == "chars":
            return terminals.setdefault(node.ranges, f"T{len(terminals)}")
        if node.kind == "rep":
            most = "" if node.most is None else str(node.most)
            count = {(0, ""): "*", (1, ""): "+", (0, "1"): "?"}.get((node.least, most), f"{{{node.least},{most}}}")
            return f"({lark_of(node.parts[0])}){count}"
        if node.kind == "alt":
            return f"({' | '.join(lark_of(part) for part in node.parts)})"
        return " ".join(lark_of(part) for part in node.parts) or '""'

    lines = [f"start: {numbers['root']}", *(f"{numbers[name]}: {lark_of(rule)}" for name, rule in rules.items())]
    lines += [f"{name}: /{written(Node('chars', ranges=ranges), rust)}/" for ranges, name in terminals.items()]
    return "\n".join(["%llguidance {}\n", *lines, ""])
