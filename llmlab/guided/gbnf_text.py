"""Write regexes and choices as GBNF, for servers whose only grammars are llama.cpp's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmlab.guided.chars import ALL, Node, Ranges, single

MOST_REPEATS = 2000
"""llama.cpp's limit of a count (MAX_REPETITION_THRESHOLD in llama-grammar.cpp)."""
_SPECIAL = re.compile(r"[^ -~]|[\"\\]")
_NAMED = 6
"""Classes with more ranges get a rule of their own, written once."""


class GbnfTextError(ValueError):
    """A regex that llama.cpp's grammars can't hold."""


def of_regex(tree: Node) -> str:
    """A grammar that matches the same texts as a regex.

    Args:
        tree: the syntax tree of the regex, without anchors (`Guide.tree`).

    Raises:
        GbnfTextError: a count is above llama.cpp's limit.
    """
    classes: dict[Ranges, str] = {}
    root = _written(tree, classes)
    return "\n".join([f"root ::= {root}", *(f"{name} ::= {_class(ranges)}" for ranges, name in classes.items())])


def of_choice(choices: Sequence[str]) -> str:
    """A grammar that matches exactly these texts."""
    return f"root ::= {' | '.join(_literal(text) for text in choices)}"


def _written(node: Node, classes: dict[Ranges, str]) -> str:
    if node.kind == "chars":
        if len(node.ranges) > _NAMED and node.ranges != ALL:
            return classes.setdefault(node.ranges, f"class-{len(classes)}")
        return _class(node.ranges)
    if node.kind == "alt":
        return f"({' | '.join(_written(part, classes) for part in node.parts)})"
    if node.kind == "seq":
        return " ".join(_written(part, classes) for part in node.parts) or '""'
    return _repeated(node, classes)


def _repeated(node: Node, classes: dict[Ranges, str]) -> str:
    inner, least, most = node.parts[0], node.least, node.most
    if most == 0:
        return '""'
    if _empty(inner):
        # llama.cpp refuses a repeated part that may be empty, as left recursion.
        inner, least = _nonempty(inner), 0
        if _never(inner):
            return '""'
    if max(least, most or 0) > MOST_REPEATS:
        raise GbnfTextError(f"repeats more than {MOST_REPEATS:,} times, llama.cpp's limit")
    limit = "" if most is None else str(most)
    count = {(0, ""): "*", (1, ""): "+", (0, "1"): "?"}.get((least, limit), f"{{{least},{limit}}}")
    return f"({_written(inner, classes)}){count}"


def _empty(node: Node) -> bool:
    """Whether the empty text matches."""
    if node.kind == "seq":
        return all(_empty(part) for part in node.parts)
    if node.kind == "alt":
        return any(_empty(part) for part in node.parts)
    return node.kind == "rep" and (node.least == 0 or _empty(node.parts[0]))


def _nonempty(node: Node) -> Node:
    """A node that matches the same texts but the empty one."""
    if not _empty(node):
        return node
    if node.kind == "alt":
        return _alternatives([_nonempty(part) for part in node.parts])
    if node.kind == "rep":
        # Each repeat that matters has a character, so there may be fewer of them.
        inner = _nonempty(node.parts[0])
        return Node("alt") if node.most == 0 or _never(inner) else Node("rep", (inner,), least=1, most=node.most)
    # The first part that isn't empty, then the others.
    return _alternatives(
        [Node("seq", (first, *node.parts[at + 1 :])) for at, first in enumerate(map(_nonempty, node.parts))]
    )


def _alternatives(branches: list[Node]) -> Node:
    kept = tuple(branch for branch in branches if not _never(branch))
    return kept[0] if len(kept) == 1 else Node("alt", kept)


def _never(node: Node) -> bool:
    """Whether it was left without any text by `_nonempty`."""
    if node.kind == "alt":
        return not node.parts
    return node.kind == "seq" and any(_never(part) for part in node.parts)


def _class(ranges: Ranges) -> str:
    if ranges == ALL:
        return r"[\x00-\U0010FFFF]"
    one = single(ranges)
    if one is not None:
        return _literal(chr(one))
    return f"[{''.join(_char(a) if a == b else f'{_char(a)}-{_char(b)}' for a, b in ranges)}]"


def _literal(text: str) -> str:
    return f'"{_SPECIAL.sub(lambda found: _char(ord(found[0])), text)}"'


def _char(code: int) -> str:
    if code < 128 and chr(code).isalnum():
        return chr(code)
    if code < 256:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
