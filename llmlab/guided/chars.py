"""Regular expressions over code points: the syntax tree that the schema-pattern and GBNF parsers produce."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]
"""(first, last) code points, sorted and disjoint, without surrogates."""

LAST = 0x10FFFF


class EmptyClassError(ValueError):
    """A character class matches nothing."""


GAP = (0xD800, 0xDFFF)
"""Surrogates, which valid text never contains."""


def as_ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Sort and merge ranges, and drop surrogates."""
    kept: list[tuple[int, int]] = []
    for first, last in pairs:
        if first < GAP[0]:
            kept.append((first, min(last, GAP[0] - 1)))
        if last > GAP[1]:
            kept.append((max(first, GAP[1] + 1), last))
    out: list[tuple[int, int]] = []
    for first, last in sorted(kept):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


def others(ranges: Ranges) -> Ranges:
    """The complement of a set of characters."""
    edges = [-1, *(edge for first, last in ranges for edge in (first, last)), LAST + 1]
    return as_ranges((edges[i] + 1, edges[i + 1] - 1) for i in range(0, len(edges), 2) if edges[i] + 1 < edges[i + 1])


ALL = as_ranges([(0, LAST)])


@dataclass(frozen=True, slots=True)
class Node:
    """A regex node: chars (a set), seq, alt, rep (of one part), ref (to a rule), start or end."""

    kind: str
    parts: tuple[Node, ...] = ()
    ranges: Ranges = ()
    least: int = 0
    most: int | None = None
    name: str = ""

    @property
    def anchored(self) -> bool:
        """Whether it contains ^ or $."""
        return self.kind in ("start", "end") or any(part.anchored for part in self.parts)


def single(ranges: Ranges) -> int | None:
    """The code point of a one-character set, else None."""
    return ranges[0][0] if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else None


def written(node: Node, char: Callable[[int], str]) -> str:
    """Write a node without anchors as a regex."""
    if node.kind == "alt":
        return f"(?:{'|'.join(written(part, char) for part in node.parts)})"
    if node.kind == "seq":
        return "".join(written(part, char) for part in node.parts)
    if node.kind == "rep":
        most = "" if node.most is None else str(node.most)
        count = {(0, ""): "*", (1, ""): "+", (0, "1"): "?"}.get((node.least, most), f"{{{node.least},{most}}}")
        return f"(?:{written(node.parts[0], char)}){count}"
    if node.ranges == ALL:
        return "(?s:.)"
    if not node.ranges:
        raise EmptyClassError("the empty class [] matches nothing")
    one = single(node.ranges)
    if one is not None:
        return char(one)
    return f"[{''.join(char(a) if a == b else f'{char(a)}-{char(b)}' for a, b in node.ranges)}]"


def rust(code: int) -> str:
    """A character as a regex in the mask library's dialect (Rust)."""
    return chr(code) if code < 128 and chr(code).isalnum() else f"\\x{{{code:x}}}"
