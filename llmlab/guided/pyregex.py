r"""Translate the regexes of `regex=` (Python's `re`, with `\p{...}` added) for the token masks.

Python's own parser reads them; classes become explicit code point ranges, so that the masks mean the same.
"""

from __future__ import annotations

import functools
import re
import warnings
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from llmlab.guided.chars import ALL, GAP, LAST, EmptyClassError, Node, Ranges, as_ranges, others, rust, written
from llmlab.guided.ecma import EcmaError, EcmaUnsupportedError, any_case, property_ranges, python, whole

_PROPERTY = re.compile(r"\\([pP])\{(\^?)([A-Za-z0-9_=]+)\}")
_NOT_NEWLINE = others(as_ranges([(10, 10)]))
_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII
_CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_NOT_DIGIT: r"\D", sre.CATEGORY_SPACE: r"\s", sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w", sre.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


@functools.cache
def _category(escape: str, flags: int) -> Ranges:
    found = re.compile(f"{escape}+", flags)
    chars = "".join(map(chr, (*range(GAP[0]), *range(GAP[1] + 1, LAST + 1))))
    return as_ranges((ord(run[0][0]), ord(run[0][-1])) for run in found.finditer(chars))


def _read(items: Any, flags: int) -> Node:
    """The tree of a parsed sequence."""
    parts = [_one(op, value, flags) for op, value in items]
    return parts[0] if len(parts) == 1 else Node("seq", tuple(parts))


def _one(op: Any, value: Any, flags: int) -> Node:
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        if GAP[0] <= value <= GAP[1]:
            raise EcmaError(f"\\u{value:x} is a lone surrogate, which no text contains")
        ranges = _cased(as_ranges([(value, value)]), flags)
        return Node("chars", ranges=ranges if op is sre.LITERAL else others(ranges))
    if op is sre.ANY:
        return Node("chars", ranges=ALL if flags & re.DOTALL else _NOT_NEWLINE)
    if op is sre.IN:
        return Node("chars", ranges=_class(value, flags))
    if op is sre.BRANCH:
        return Node("alt", tuple(_read(branch, flags) for branch in value[1]))
    if op is sre.SUBPATTERN:
        _, added, removed, inner = value
        return _read(inner, (flags | added) & ~removed)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        least, most, inner = value
        return Node("rep", (_read(inner, flags),), least=least, most=None if most is sre.MAXREPEAT else most)
    if op is sre.AT:
        if value in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING) and not flags & re.MULTILINE:
            return Node("start")
        if value in (sre.AT_END, sre.AT_END_STRING) and not flags & re.MULTILINE:
            return Node("end")
        raise EcmaUnsupportedError("look-around: word boundaries and the anchors of lines")
    reasons = {
        sre.ASSERT: "look-around", sre.ASSERT_NOT: "look-around", sre.GROUPREF: "back-references",
        sre.GROUPREF_EXISTS: "back-references", sre.ATOMIC_GROUP: "atomic groups",
        sre.POSSESSIVE_REPEAT: "possessive repeats",
    }  # fmt: skip
    raise EcmaUnsupportedError(reasons.get(op, str(op)))


def _cased(ranges: Ranges, flags: int) -> Ranges:
    return any_case(ranges) if flags & re.IGNORECASE else ranges


def _class(members: Any, flags: int) -> Ranges:
    pairs: list[tuple[int, int]] = []
    negated = False
    for op, value in members:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            pairs.append((value, value))
        elif op is sre.RANGE:
            pairs.append(value)
        else:
            pairs += _category(_CATEGORIES[value], flags & re.ASCII)
    ranges = _cased(as_ranges(pairs), flags)
    return others(ranges) if negated else ranges


def _with_properties(pattern: str) -> str:
    r"""The pattern with `\p{...}` as explicit ranges."""
    out, at, in_class = "", 0, False
    while at < len(pattern):
        found = _PROPERTY.match(pattern, at)
        if found:
            ranges = property_ranges(found[3])
            if (found[1] == "P") != bool(found[2]):
                ranges = others(ranges)
            members = "".join(f"{python(first)}-{python(last)}" for first, last in ranges)
            out += members if in_class else f"[{members}]"
            at = found.end()
            continue
        size = 2 if pattern[at] == "\\" else 1
        if size == 1 and pattern[at] in "[]":
            opens = pattern[at] == "[" and not in_class
            in_class = opens or (in_class and pattern[at] != "]")
            if opens:
                size = len(re.match(r"\[\^?\]?", pattern[at:])[0])  # type: ignore[index]
        out += pattern[at : at + size]
        at += size
    return out


def tree(pattern: str) -> Node:
    """Parse a regex.

    Raises:
        EcmaError: it isn't valid in Python's dialect, or dialects disagree on its meaning; `EcmaUnsupportedError` if
            token masks can't enforce it.
    """
    if any(GAP[0] <= ord(c) <= GAP[1] for c in pattern):
        raise EcmaError("it contains a lone surrogate, which no text contains")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = parser.parse(_with_properties(pattern), 0)
        return whole(_read(parsed, parsed.state.flags), "edge", "edge")
    except re.error as error:
        raise EcmaError(f"{error.msg}{f' at {error.pos}' if error.pos is not None else ''}") from None
    except (FutureWarning, DeprecationWarning) as error:
        raise EcmaError(
            f"regex dialects read it differently ({str(error)[0].lower()}{str(error)[1:]}); use escapes"
        ) from None
    except (RecursionError, OverflowError):
        raise EcmaError("it is nested too deeply, or a count is too large") from None


def endless(node: Node) -> bool:
    """Whether a part of it repeats without a limit."""
    return (node.kind == "rep" and node.most is None) or any(endless(part) for part in node.parts)


def translated(pattern: str) -> tuple[str, str, Node]:
    """A regex for the masks and for the validator, which match entire texts, and its tree."""
    node = tree(pattern)
    try:
        return written(node, rust), rf"\A(?:{written(node, python)})\Z", node
    except EmptyClassError:
        raise EcmaError("No text matches") from None
