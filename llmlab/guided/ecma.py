r"""Translate the regexes of JSON schemas (ECMA-262) for the token masks and for the validator.

Every class becomes explicit code point ranges, so that `\d`, `\s`, `.` and `\p{L}` mean the same on both sides.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from typing import Any
from urllib.parse import quote, unquote

from llmlab.guided.chars import ALL, GAP, LAST, EmptyClassError, Node, Ranges, as_ranges, others, rust, single, written
from llmlab.guided.walk import escape

_MOST_REPEATS = 10_000_000
_NAME = re.compile(r"[^\W\d][\w$]*|[$][\w$]*")
_COUNT = re.compile(r"\{(\d+)(,?)(\d*)\}")
_PROPERTY = re.compile(r"\{([A-Za-z_]+)(?:=([A-Za-z0-9_]+))?\}|\{([A-Za-z0-9_]+)\}")
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}


class EcmaError(ValueError):
    """Not a valid ECMA-262 regex."""


class EcmaUnsupportedError(EcmaError):
    """A valid regex that token masks can't enforce."""


_DIGIT = as_ranges([(48, 57)])
_WORD = as_ranges([(48, 57), (65, 90), (95, 95), (97, 122)])
_SPACE = as_ranges(
    [(9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
     (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]
)  # fmt: skip
_DOT = others(as_ranges([(10, 10), (13, 13), (0x2028, 0x2029)]))
_ESCAPED = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_ESCAPED |= {name.upper(): others(ranges) for name, ranges in _ESCAPED.items()}


@functools.cache
def property_ranges(name: str) -> Ranges:
    """The code points with a Unicode property.

    Raises:
        EcmaError: there is no such property.
    """
    import regex

    try:
        found = regex.compile(rf"\p{{{name}}}+", regex.V1)
    except regex.error:
        raise EcmaError(f"there is no Unicode property {name!r}") from None
    chars = "".join(map(chr, (*range(GAP[0]), *range(GAP[1] + 1, LAST + 1))))
    pairs = [(ord(run[0][0]), ord(run[0][-1])) for run in found.finditer(chars)]
    return as_ranges(pairs)


@functools.cache
def _cases() -> dict[int, frozenset[int]]:
    """For each cased letter, the letters that it equals when case is ignored."""
    groups: dict[str, set[int]] = {}
    for code in (*range(GAP[0]), *range(0xE000, 0x20000)):
        upper = chr(code).upper()
        if len(upper) == 1 and (upper != chr(code) or chr(code).lower() != chr(code)):
            groups.setdefault(upper, set()).update((code, ord(upper)))
    return {code: frozenset(group) for group in groups.values() if len(group) > 1 for code in group}


def any_case(ranges: Ranges) -> Ranges:
    """The characters with those that differ only in case."""
    firsts = [first for first, _ in ranges]

    def has(code: int) -> bool:
        place = bisect_right(firsts, code) - 1
        return place >= 0 and code <= ranges[place][1]

    return as_ranges([*ranges, *((other, other) for code, group in _cases().items() if has(code) for other in group)])


# -- the tree -----------------------------------------------------------------------------------


_NOTHING = Node("seq")
_ANYTHING = Node("rep", (Node("chars", ranges=ALL),))


class _Reader:
    """Parses one regex.

    Args:
        text: the regex.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.ignore_case = False

    def read(self) -> Node:
        if any(GAP[0] <= ord(c) <= GAP[1] for c in self.text):
            raise EcmaError("it contains a lone surrogate")
        if self.text.startswith("(?i)"):
            self.at, self.ignore_case = 4, True
        found = self._alternatives()
        if self.at < len(self.text):
            raise EcmaError(f"unmatched ) at {self.at}")
        return found

    def _peek(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def _take(self, what: str) -> bool:
        found = self._peek(what)
        self.at += len(what) if found else 0
        return found

    def _alternatives(self) -> Node:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Node("alt", tuple(branches))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self._quantified(self._atom()))
        return Node("seq", tuple(parts))

    def _quantified(self, node: Node) -> Node:
        start = self.at
        counted = _COUNT.match(self.text, self.at)
        least: int
        most: int | None
        if self._take("*"):
            least, most = 0, None
        elif self._take("+"):
            least, most = 1, None
        elif self._take("?"):
            least, most = 0, 1
        elif counted:
            self.at = counted.end()
            least = int(counted[1])
            most = (int(counted[3]) if counted[3] else None) if counted[2] else least
            if most is not None and most < least:
                raise EcmaError(f"the counts of {counted[0]} are in the wrong order")
            if max(least, most or 0) > _MOST_REPEATS:
                raise EcmaUnsupportedError(f"{counted[0]} repeats more than {_MOST_REPEATS:,} times")
        else:
            return node
        if node.kind in ("start", "end"):
            raise EcmaError(f"nothing to repeat at {start}")
        self._take("?")  # lazy: the same texts match
        if self.at < len(self.text) and (self.text[self.at] in "*+?" or _COUNT.match(self.text, self.at)):
            raise EcmaError(f"nothing to repeat at {self.at}")
        return Node("rep", (node,), least=least, most=most)

    def _atom(self) -> Node:
        sign = self.text[self.at]
        if sign in "*+?" or (sign == "{" and _COUNT.match(self.text, self.at)):
            raise EcmaError(f"nothing to repeat at {self.at}")
        self.at += 1
        if sign == "^":
            return Node("start")
        if sign == "$":
            return Node("end")
        if sign == ".":
            return Node("chars", ranges=_DOT)
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._class()
        if sign == "\\":
            return self._chars(self._escape(in_class=False))
        return self._chars(as_ranges([(ord(sign), ord(sign))]))

    def _chars(self, ranges: Ranges) -> Node:
        return Node("chars", ranges=any_case(ranges) if self.ignore_case else ranges)

    def _group(self) -> Node:
        opened, before = self.at - 1, self.ignore_case
        if self._take("?"):
            for mark in ("=", "!", "<=", "<!"):
                if self._peek(mark):
                    raise EcmaUnsupportedError(f"look-around (?{mark}…) can't be enforced")
            if self._take("i:"):
                self.ignore_case = True
            elif self._take("<") or self._take("P<"):
                name = _NAME.match(self.text, self.at)
                if name is None or not self.text.startswith(">", name.end()):
                    raise EcmaError(f"the group at {opened} has no name")
                self.at = name.end() + 1
            elif not self._take(":"):
                raise EcmaError(f"(?{self.text[self.at : self.at + 1]} isn't ECMA-262")
        inner = self._alternatives()
        if not self._take(")"):
            raise EcmaError(f"( at {opened} isn't closed")
        self.ignore_case = before
        return inner

    def _escape(self, *, in_class: bool) -> Ranges:
        """The characters that an escape means; the backslash is already consumed."""
        if self.at >= len(self.text):
            raise EcmaError("it ends with a backslash")
        sign = self.text[self.at]
        self.at += 1
        if sign in _ESCAPED:
            return _ESCAPED[sign]
        if sign in "pP":
            return self._unicode(sign)
        if sign in "bB" and not (in_class and sign == "b"):
            raise EcmaUnsupportedError(f"word boundaries (\\{sign}) can't be enforced")
        if sign == "k" or (sign in "123456789" and not in_class):
            raise EcmaUnsupportedError("back-references can't be enforced")
        code = self._code(sign)
        return as_ranges([(code, code)])

    def _code(self, sign: str) -> int:
        """The code point of a single-character escape."""
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign == "b":
            return 8
        if sign == "0" and not self.text[self.at : self.at + 1].isdigit():
            return 0
        if sign == "c":
            letter = self.text[self.at : self.at + 1]
            if not (letter.isascii() and letter.isalpha()):
                raise EcmaError("\\c needs a letter")
            self.at += 1
            return ord(letter) % 32
        if sign == "x":
            return self._hex(2, "\\x")
        if sign == "u":
            return self._u()
        if sign.isalnum() and sign.isascii():
            hint = {"A": ", use ^", "Z": ", use $", "z": ", use $"}.get(sign, "")
            raise EcmaError(f"\\{sign} isn't ECMA-262{hint}")
        return ord(sign)

    def _hex(self, size: int, what: str) -> int:
        digits = self.text[self.at : self.at + size]
        if len(digits) != size or not re.fullmatch("[0-9A-Fa-f]+", digits):
            raise EcmaError(f"{what} needs {size} hex digits")
        self.at += size
        return int(digits, 16)

    def _u(self) -> int:
        if self._take("{"):
            digits, end, rest = self.text[self.at :].partition("}")
            if not end or not re.fullmatch("[0-9A-Fa-f]+", digits) or int(digits, 16) > LAST:
                raise EcmaError("\\u{…} needs the hex digits of a code point")
            self.at = len(self.text) - len(rest)
            code = int(digits, 16)
        else:
            code = self._hex(4, "\\u")
            if GAP[0] <= code < 0xDC00 and self._peek("\\u"):
                back = self.at
                self.at += 2
                low = 0 if self._peek("{") else self._hex(4, "\\u")
                if 0xDC00 <= low <= GAP[1]:
                    code = 0x10000 + ((code - GAP[0]) << 10) + (low - 0xDC00)
                else:
                    self.at = back
        if GAP[0] <= code <= GAP[1]:
            raise EcmaError(f"\\u{code:x} is a lone surrogate")
        return code

    def _unicode(self, sign: str) -> Ranges:
        found = _PROPERTY.match(self.text, self.at)
        if found is None:
            raise EcmaError(f"\\{sign} needs a property, as in \\{sign}{{L}}")
        self.at = found.end()
        ranges = property_ranges(found[0][1:-1])
        return others(ranges) if sign == "P" else ranges

    def _class(self) -> Node:
        opened = self.at - 1
        negated = self._take("^")
        pairs: list[tuple[int, int]] = []
        while not self._take("]"):
            first = self._member(opened)
            if self._peek("-") and not self._peek("-]") and self.at + 1 < len(self.text):
                self.at += 1
                last = self._member(opened)
                if single(first) is None or single(last) is None:
                    pairs += [*first, (45, 45), *last]  # [\w-x]: a dash
                    continue
                if first[0][0] > last[0][0]:
                    raise EcmaError(f"the range {chr(first[0][0])}-{chr(last[0][0])} is in the wrong order")
                pairs.append((first[0][0], last[0][0]))
            else:
                pairs += first
        node = self._chars(as_ranges(pairs))
        return Node("chars", ranges=others(node.ranges)) if negated else node

    def _member(self, opened: int) -> Ranges:
        if self.at >= len(self.text):
            raise EcmaError(f"[ at {opened} isn't closed")
        sign = self.text[self.at]
        self.at += 1
        return self._escape(in_class=True) if sign == "\\" else as_ranges([(ord(sign), ord(sign))])


# -- from search to full match -------------------------------------------------------------------


def whole(node: Node, left: str, right: str) -> Node:
    """Rewrite a node to match the entire text: drop its anchors, allow anything beside an unanchored end.

    Args:
        node: the node.
        left: "open" if anything may precede it, "edge" at the start of the text, "" inside.
        right: the same for its end.
    """
    if node.kind == "alt":
        return Node("alt", tuple(whole(part, left, right) for part in node.parts))
    if node.kind == "rep" and node.anchored:
        if node.most != 1:
            raise EcmaUnsupportedError("^ or $ in a repeated group can't be enforced")
        branches = (*((_NOTHING,) if node.least == 0 else ()), node.parts[0])
        return whole(Node("alt", branches), left, right)
    parts = list(node.parts) if node.kind == "seq" else [node]
    while left and parts and parts[0].kind == "start":
        del parts[0]
        left = "edge"
    while right and parts and parts[-1].kind == "end":
        del parts[-1]
        right = "edge"
    if not parts:
        return _edges(_NOTHING, left, right)
    out: list[Node] = []
    for place, part in enumerate(parts):
        here = (left if place == 0 else "", right if place == len(parts) - 1 else "")
        if not part.anchored:
            out.append(_edges(part, *here))
        elif part.kind in ("start", "end"):
            raise EcmaUnsupportedError(f"{'^' if part.kind == 'start' else '$'} inside the pattern can't be enforced")
        else:
            out.append(whole(part, *here))
    return Node("seq", tuple(out))


def _edges(node: Node, left: str, right: str) -> Node:
    before = (_ANYTHING,) if left == "open" else ()
    after = (_ANYTHING,) if right == "open" else ()
    return Node("seq", (*before, node, *after)) if before or after else node


def python(code: int) -> str:
    """A character as Python's `re` writes it."""
    return chr(code) if code < 128 and chr(code).isalnum() else f"\\U{code:08x}"


@functools.lru_cache(maxsize=1024)
def parsed(pattern: str) -> Node:
    """The tree of a schema's regex, which matches entire texts.

    Raises:
        EcmaError: it isn't a valid regex, or can't be enforced.
    """
    try:
        return whole(_Reader(pattern).read(), "open", "open")
    except RecursionError:
        raise EcmaError("it is nested too deeply") from None


@functools.lru_cache(maxsize=1024)
def translated(pattern: str) -> tuple[str, str]:
    """A schema's regex for the masks and for the validator; both match the entire text if the pattern occurs in it.

    Args:
        pattern: an ECMA-262 regex in Unicode mode; redundant escapes and a leading `(?i)` are accepted.

    Returns:
        The regex for the mask library (Rust's dialect), and the one for Python's `re`.

    Raises:
        EcmaError: it isn't a valid regex; `EcmaUnsupportedError` if token masks can't enforce it.
    """
    node = parsed(pattern)
    try:
        return f"^(?:{written(node, rust)})$", rf"\A(?:{written(node, python)})\Z"
    except RecursionError:
        raise EcmaError("it is nested too deeply") from None
    except EmptyClassError as error:
        raise EcmaError(str(error)) from None


def finds(pattern: str, text: str) -> bool:
    """Whether a schema's regex occurs in a text.

    Raises:
        EcmaError: it isn't a valid regex, or can't be enforced.
    """
    return re.search(translated(pattern)[1], text) is not None


def with_patterns(node: dict[str, Any], side: int, original: dict[str, str]) -> dict[str, Any]:
    """A copy of a subschema with its regexes translated.

    Args:
        node: the subschema.
        side: 0 for the masks, 1 for the validator.
        original: filled with translated regex -> the schema's regex.
    """
    out = dict(node)
    if isinstance(node.get("pattern"), str):
        out["pattern"] = translated(node["pattern"])[side]
        original[out["pattern"]] = node["pattern"]
    if isinstance(node.get("patternProperties"), dict):
        named: dict[str, Any] = {}
        for key, schema in node["patternProperties"].items():
            new = translated(key)[side]
            original[new] = key
            named[new] = {"allOf": [named[new], schema]} if new in named else schema
        out["patternProperties"] = named
    reference = node.get("$ref")
    if isinstance(reference, str) and "/patternProperties/" in reference:
        # The target was renamed along with its pattern.
        steps = reference.split("/")
        for place in range(1, len(steps)):
            if steps[place - 1] == "patternProperties":
                key = unquote(steps[place]).replace("~1", "/").replace("~0", "~")
                steps[place] = quote(escape(translated(key)[side]), safe="~")
        out["$ref"] = "/".join(steps)
    return out
