r"""Detects maths in text, by the same rule for cells and for the chat (`frontend/src/maths.ts`).

Maths is `\(…\)`, `\[…\]`, `$$…$$`, and `$…$` unless it is a price. `tests/maths_cases.json` tests both implementations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLOSERS = {r"\(": r"\)", r"\[": r"\]", "$$": "$$", "$": "$"}
_STEP = re.compile(r"\\.|[{}]|\n[ \t]*(?=\n)|\$\$?", re.DOTALL)
_DEEPEST = 20
# "$5 (or 5$)": an amount followed by words is a price.
_PRICE = re.compile(r"\d(?:.*\s)?\(?[A-Za-z]{2,}\s", re.DOTALL)
_QUOTE = re.compile(r"[ \t]*(?:>[ \t]?)+")
_COMMENT = re.compile(r"(?<!\\)%.*")


@dataclass(frozen=True)
class Formula:
    """A formula in a text: its TeX, whether it is on a separate line, and the position after it."""

    tex: str
    display: bool
    end: int


def formula_at(text: str, at: int) -> Formula | None:
    r"""The formula that starts at a position with an unescaped `\` or `$`, or None.

    Its braces balance and it has no blank line. A single dollar opens a formula if it doesn't follow a letter or digit
    and isn't followed by a space; it closes one if it doesn't follow a space and isn't followed by a digit, capital, _
    or {.
    """
    opener = next((one for one in _CLOSERS if text.startswith(one, at)), None)
    if opener is None:
        return None
    before, start = text[at - 1 : at], at + len(opener)
    after = text[start : start + 1]
    if opener == "$" and (before.isalnum() or before == "$" or not after.strip()):
        return None
    if opener == "$$" and "$" in (before, after):
        return None
    end = _closing(text, start, opener)
    tex, behind = text[start:end], text[end + len(opener) : end + len(opener) + 1]
    if end < 0 or not re.search(r"[^\s\\]", tex):
        return None
    if opener == "$" and (tex[-1].isspace() or re.match("[0-9A-Z_{$]", behind) or _PRICE.match(tex)):
        return None
    return Formula(tex.strip(), opener in (r"\[", "$$"), end + len(opener))


def _closing(text: str, start: int, opener: str) -> int:
    depth = 0
    for found in _STEP.finditer(text, start):
        mark = found.group()
        if mark[0] == "\n":
            return -1
        if depth == 0 and mark == _CLOSERS[opener]:
            return found.start()
        if depth == 0 and (mark == opener or mark[0] == "$"):
            return -1
        depth += {"{": 1, "}": -1}.get(mark, 0)
        if not 0 <= depth <= _DEEPEST:
            return -1
    return -1


def dollars(formula: Formula, *, quoted: bool) -> str:
    """A formula between dollars, on one line, which every notebook renderer recognizes as maths.

    Args:
        formula: the formula.
        quoted: whether it starts in a block quote, whose markers aren't part of it.
    """
    lines = formula.tex.split("\n")
    if quoted:
        lines = [_QUOTE.sub("", line, count=1) for line in lines]
    lines = [_COMMENT.sub("", line) for line in lines[:-1]] + lines[-1:]
    mark = "$$" if formula.display else "$"
    return mark + " ".join(line.strip() for line in lines).strip() + mark


def dollar() -> str:
    """A dollar that no renderer interprets as maths.

    As a character reference it isn't a dollar in the source; in its own element, MathJax can't pair it with another
    one.
    """
    return "<span>&#36;</span>"
