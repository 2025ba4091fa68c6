r"""Which text is maths: one rule for cells and for the chat, whose front end has it in `frontend/src/maths.ts`.

Maths is `\(…\)`, `\[…\]`, `$$…$$`, and `$…$` where it is no price. `tests/maths_cases.json` holds for both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLOSERS = {r"\(": r"\)", r"\[": r"\]", "$$": "$$", "$": "$"}
_STEP = re.compile(r"\\.|[{}]|\n[ \t]*(?=\n)|\$\$?", re.DOTALL)
_DEEPEST = 20
# "$5 (or 5$)": an amount with words is a price.
_PRICE = re.compile(r"\d(?:.*\s)?\(?[A-Za-z]{2,}\s", re.DOTALL)
_QUOTE = re.compile(r"[ \t]*(?:>[ \t]?)+")
_COMMENT = re.compile(r"(?<!\\)%.*")


@dataclass(frozen=True)
class Formula:
    """A formula in a text: its TeX, whether it has a line of its own, and where the text goes on behind it."""

    tex: str
    display: bool
    end: int


def formula_at(text: str, at: int) -> Formula | None:
    r"""The formula that starts at a place, where an unescaped `\` or `$` is.

    Braces balance in it and there is no blank line. A single dollar opens where no letter or digit is before it and no
    blank behind it; it closes where no blank is before it, and no digit, capital, _ or { behind it.
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
    """A formula between dollars, on one line: the form that every notebook's renderer takes for maths.

    Args:
        formula: what to write.
        quoted: it begins in a block quote, whose marks aren't part of it.
    """
    lines = formula.tex.split("\n")
    if quoted:
        lines = [_QUOTE.sub("", line, count=1) for line in lines]
    lines = [_COMMENT.sub("", line) for line in lines[:-1]] + lines[-1:]
    mark = "$$" if formula.display else "$"
    return mark + " ".join(line.strip() for line in lines).strip() + mark


def dollar() -> str:
    """A dollar that no renderer takes for maths.

    As a reference it is none in the source; in an element of its own, MathJax finds no other to pair it with.
    """
    return "<span>&#36;</span>"
