"""The shortest ending of a string under a regex, computed exactly on its automaton."""

from __future__ import annotations

import functools
import heapq
import json
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from llmlab.guided.chars import ALL, Node, Ranges
from llmlab.guided.ecma import EcmaError, parsed
from llmlab.guided.formats import REPLACED, TIGHTER

_MOST_STATES = 4000
_MOST_SHAPES = 64
_HEX = "[0-9a-f]"
_FORMATS = {
    **REPLACED, **TIGHTER, "ipv4": r"([0-9]{1,2}\.){3}[0-9]{1,2}", "ipv6": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|::",
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
}  # fmt: skip


class Shape:
    """A regex as an automaton.

    Args:
        node: the regex, without anchors; it matches entire texts.

    Raises:
        ValueError: the automaton is too large.
    """

    def __init__(self, node: Node) -> None:
        self._skips: list[list[int]] = []
        self._reads: list[list[tuple[Ranges, int]]] = []
        start, self._end = self._state(), self._state()
        self._build(node, start, self._end)
        self.start = self._closed({start})
        self._left = self._distances()

    def _state(self) -> int:
        if len(self._skips) >= _MOST_STATES:
            raise ValueError("the automaton is too large")
        self._skips.append([])
        self._reads.append([])
        return len(self._skips) - 1

    def _build(self, node: Node, start: int, end: int) -> None:
        if node.kind == "chars":
            self._reads[start].append((node.ranges, end))
        elif node.kind == "alt":
            for part in node.parts:
                self._build(part, start, end)
        elif node.kind == "seq":
            at = start
            for part in node.parts:
                after = self._state()
                self._build(part, at, after)
                at = after
            self._skips[at].append(end)
        elif node.kind == "rep":
            at = start
            for _ in range(node.least):
                after = self._state()
                self._build(node.parts[0], at, after)
                at = after
            if node.most is None:
                loop = self._state()
                self._skips[at].append(loop)
                self._build(node.parts[0], loop, loop)
                at = loop
            else:
                for _ in range(node.most - node.least):
                    self._skips[at].append(end)
                    after = self._state()
                    self._build(node.parts[0], at, after)
                    at = after
            self._skips[at].append(end)
        else:
            raise ValueError(node.kind)

    def _distances(self) -> list[float]:
        """For each state the fewest characters to the end."""
        back: list[list[tuple[int, int]]] = [[] for _ in self._skips]
        for state, (skips, reads) in enumerate(zip(self._skips, self._reads, strict=True)):
            for target in skips:
                back[target].append((state, 0))
            for ranges, target in reads:
                if ranges:
                    back[target].append((state, 1))
        left = [float("inf")] * len(back)
        left[self._end] = 0
        heap = [(0.0, self._end)]
        while heap:
            distance, state = heapq.heappop(heap)
            if distance > left[state]:
                continue
            for source, cost in back[state]:
                if distance + cost < left[source]:
                    left[source] = distance + cost
                    heapq.heappush(heap, (left[source], source))
        return left

    def _closed(self, states: Iterable[int]) -> frozenset[int]:
        found, waiting = set(states), list(states)
        while waiting:
            for target in self._skips[waiting.pop()]:
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        return frozenset(found)

    def after(self, states: frozenset[int], text: str) -> frozenset[int]:
        """The states after some more text; none if nothing matches it."""
        for char in text:
            if not states:
                break
            code = ord(char)
            states = self._closed(
                {target for state in states for ranges, target in self._reads[state] if _has(ranges, code)}
            )
        return states

    def ending(self, begun: str) -> str | None:
        """The shortest text that completes a beginning; None if nothing does."""
        return self.shortest(self.after(self.start, begun))

    def shortest(self, states: frozenset[int]) -> str | None:
        """The shortest text that leads from any of some states to the end; None if there is none."""
        if not states:
            return None
        out: list[str] = []
        state = min(states, key=self._left.__getitem__)
        if self._left[state] == float("inf"):
            return None
        while state != self._end:
            skip = next((target for target in self._skips[state] if self._left[target] == self._left[state]), None)
            if skip is not None:
                state = skip
                continue
            ranges, state = next(
                (ranges, target)
                for ranges, target in self._reads[state]
                if ranges and self._left[target] == self._left[state] - 1
            )
            out.append(_easiest(ranges))
        return "".join(out)


def _has(ranges: Ranges, code: int) -> bool:
    place = bisect_right(ranges, (code, 0x110000)) - 1
    return place >= 0 and ranges[place][0] <= code <= ranges[place][1]


def _easiest(ranges: Ranges) -> str:
    """A character of a class: a digit or letter if there is one, else any that JSON writes as it is."""
    for wanted in ((48, 57), (97, 122), (65, 90), (32, 33), (35, 91), (93, 126), (160, 0x10FFFF)):
        for first, last in ranges:
            code = max(first, wanted[0])
            if code <= min(last, wanted[1]):
                return chr(code)
    return chr(ranges[0][0])


@functools.lru_cache(maxsize=64)
def _shape(node: Node) -> Shape | None:
    try:
        return Shape(node)
    except (ValueError, RecursionError):
        return None


def shapes(schema: Any) -> list[Shape]:
    """The automata of the strings and keys that a schema describes by a pattern, a format or a length."""
    nodes: dict[Node, None] = {}
    waiting = [schema]
    while waiting and len(nodes) < _MOST_SHAPES:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        if not isinstance(one, dict):
            continue
        waiting += one.values()
        patterns = [
            one.get("pattern"),
            *(one["patternProperties"] if isinstance(one.get("patternProperties"), dict) else ()),
        ]
        form = one.get("format")
        if isinstance(form, str) and form in _FORMATS:
            patterns.append(f"^(?:{_FORMATS[form]})$")
        for pattern in patterns:
            if isinstance(pattern, str):
                try:
                    nodes[parsed(pattern)] = None
                except EcmaError:
                    continue
        least = one.get("minLength")
        if isinstance(least, int | float) and 0 < least <= _MOST_STATES // 2:
            node = Node("rep", (Node("chars", ranges=ALL),), least=int(least), most=None)
            nodes[node] = None
    return [shape for node in nodes if (shape := _shape(node)) is not None]


def whole_text(node: Node) -> Shape | None:
    """The automaton of a regex; None if it is too large."""
    return _shape(node)


def as_json(text: str) -> bytes:
    """The rest of a JSON string, with its closing quotation mark."""
    return json.dumps(text, ensure_ascii=False)[1:].encode()
