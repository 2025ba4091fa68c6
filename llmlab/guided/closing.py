"""Complete a guided text within its token budget, along the shortest ending that a quick search finds.

The search tries tokens that close something first. Inside a string with a pattern, a format or a least length, and in a
text under a regex, it takes the exact shortest ending from the regex's automaton (`llmlab.guided.endings`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from llmlab.guided.endings import Shape, as_json, shapes, whole_text
from llmlab.guided.guide import Guide
from llmlab.guided.scan import Scan

# States visited per search in a decoding loop, where everyone in the batch waits (a state costs up to 0.3 ms), and in
# the first search, which runs before the request joins the batch.
EFFORT = 64
FIRST_EFFORT = 1500
# Tokens tried per state.
_TRIED = 6
# Places of an earlier ending from which it is tried.
_TAILS = 48
# A search is postponed while more tokens than this are to spare.
_SPARE = 64
# Endings of a string tried per state.
_JUMPS = 16
_VARIED = "123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

_CLOSING = re.compile(rb'["}\]]+')
_JOINING = re.compile(rb'[\s":,{}\[\]]*[":,}\]][\s":,{}\[\]]*')
_OPENING = (b"(", b"[", b"{", b"<")
_DIGIT = re.compile(rb"[0-9]")


class Ranks:
    """The tokens of a vocabulary, ranked by how well they bring a text to its end.

    Args:
        tokenizer: llguidance's LLTokenizer.
        pieces: the bytes of its tokens.
    """

    def __init__(self, tokenizer: Any, pieces: list[bytes]) -> None:
        import numpy as np

        self.pieces = pieces
        self.end: int = tokenizer.eos_token
        self.tokenize = tokenizer.tokenize_bytes
        ids = range(len(self.pieces))
        outside = sorted(ids, key=lambda i: (_class(self.pieces[i]), len(self.pieces[i]), i))
        # Inside a string, only tokens that begin with a quote close anything.
        inside = sorted(outside, key=lambda i: not (_CLOSING.fullmatch(self.pieces[i]) and self.pieces[i][:1] == b'"'))
        self.outside, self.inside = np.array(outside, dtype=np.int64), np.array(inside, dtype=np.int64)


def follow(matcher: Any, tokens: Sequence[int]) -> int:
    """Advance a matcher by the tokens that it allows; returns how many.

    Computing a mask gives the mask library's lexer new fuel. Without, long texts under large patterns run out of it,
    which spoils every matcher of the guide.
    """
    for place, token in enumerate(tokens):
        if not matcher.try_consume_tokens([token]):
            return place
        if not matcher.is_stopped():
            matcher.compute_bitmask()
    return len(tokens)


def _class(piece: bytes) -> int:
    if _CLOSING.fullmatch(piece):
        # `}]` closes in one token what `}` and `]` close in two; a quote would open a string here.
        return -len(piece) if piece[:1] != b'"' else 0
    if _JOINING.fullmatch(piece):
        opened = sum(piece.count(one) for one in b"{[") - sum(piece.count(one) for one in b"}]")
        return 4 if opened > 0 else 1
    if _DIGIT.fullmatch(piece):
        return 2
    if len(piece) == 1 and not piece.isalnum() and not piece.isspace():
        return 4 if piece in _OPENING else 3
    return 5 if piece.strip() and piece[:1].isspace() is False else 6


class Closer:
    """Tracks a sequence's token budget, and decides when and how to end it.

    Args:
        ranks: the vocabulary's tokens in closing order.
        guide: the sequence's constraint.
        known: an ending from the state at which it begins; without one, it is looked for.
        hint: an ending from another state of the same guide, whose end may fit.
    """

    def __init__(self, ranks: Ranks, guide: Guide, known: Sequence[int] = (), hint: Sequence[int] = ()) -> None:
        self.visited = 0
        """States visited by the last call of `instead` or `way`."""
        self.hint: Sequence[int] = hint or known
        """The last ending that was found."""
        self._known = list(known)
        # The text that the last search had read, its scan, and the states of each automaton in its open string.
        self._followed, self._scan = b"", Scan(0)
        self._reached: dict[Shape, tuple[str, frozenset[int]]] = {}
        self._ranks = ranks
        self._json = guide.kind == "json"
        self._guide = guide
        self._required = _required(guide.schema) if guide.kind == "json" else ()
        self._names = [json.loads(b'"' + name) for name in self._required]
        self._shapes = shapes(guide.schema) if guide.kind == "json" else []
        self._whole = whole_text(guide.tree) if guide.tree is not None else None
        # The last ending found, and how many tokens were left at its start.
        self._way: tuple[int, list[int]] | None = None
        self._check_at: int | None = None

    def instead(self, matcher: Any, token: int, left: int, text: bytes) -> list[int] | None:
        """Tokens to write in place of the sampled one, or None to keep it.

        Args:
            matcher: the state before the token; not modified.
            token: the sampled token.
            left: tokens left in the budget, including this one.
            text: the text before the token.

        Returns:
            The tokens that end the text, the end token last, if after this token the text could no longer be ended.
        """
        self.visited = 0
        if token == self._ranks.end:
            return None
        known = self._way[1] if self._way is not None and self._way[0] == left else None
        if self._known:
            known, self._known = (self._known if len(self._known) <= left else None), []
        if known is not None and known[0] == token:
            self._way = left - 1, known[1:]
            return None
        if self._check_at is not None and left > self._check_at:
            self._way = None
            return None
        after = matcher.deep_copy()
        if not after.consume_token(token):
            return None
        written = text + self._ranks.pieces[token]
        way = self._tail(after, left - 1, written) or self._search(after, left - 1, written, EFFORT)
        if way is not None:
            self._way, self.hint = (left - 1, way), way
            spare = left - 1 - len(way)
            # The more there is to spare, the later the next search; it halves, since a search can fail.
            self._check_at = left - 1 if spare <= _SPARE else left - 1 - spare // 2
            return None
        if known is not None:
            return known
        # Nothing known before either: the budget may be too small, and searching at every token would waste time.
        self._check_at = left - 1 - min(left // 8, 16)
        return self._search(matcher.deep_copy(), left, text, EFFORT - self.visited)

    def _tail(self, matcher: Any, budget: int, text: bytes) -> list[int] | None:
        """The end of an earlier ending that ends this text too, the longest that fits: most tokens change little."""
        hint = self.hint
        for start in range(max(0, len(hint) - budget), min(len(hint), _TAILS)):
            tail = list(hint[start:-1])
            state = matcher.deep_copy()
            if follow(state, tail) == len(tail) and state.is_accepting():
                pieces = self._ranks.pieces
                if self._checked(text + b"".join(pieces[token] for token in tail)):
                    return [*tail, self._ranks.end]
        return None

    def way(self, matcher: Any, budget: int, text: bytes = b"", effort: int = FIRST_EFFORT) -> list[int] | None:
        """Tokens that end the text, the end token last; None if no ending of at most `budget` tokens was found.

        Args:
            matcher: the state at the end of the text; not modified.
            budget: tokens, with the end token.
            text: the text so far.
            effort: states to visit at most.
        """
        self.visited = 0
        return self._search(matcher, budget, text, effort)

    def _search(self, matcher: Any, budget: int, text: bytes, effort: int) -> list[int] | None:
        # (matcher, tokens so far, text after the beginning, candidates left)
        stack: list[tuple[Any, list[int], bytes, list[list[int]]]] = []
        state, path, more = matcher, list[int](), b""
        while True:
            if state.is_accepting() and self._checked(text + more):
                return [*path, self._ranks.end] if len(path) < budget else None
            if effort <= 0:
                return None
            effort -= 1
            self.visited += 1
            options = self._options(state, text, more, first=not stack) if len(path) + 1 < budget and effort > 0 else []
            stack.append((state, path, more, options))
            while True:
                while stack and not stack[-1][3]:
                    stack.pop()
                if not stack or effort <= 0:
                    return None
                base, trail, written, options = stack[-1]
                tokens = options.pop(0)
                if len(trail) + len(tokens) >= budget:
                    continue
                state = base.deep_copy()
                if follow(state, tokens) == len(tokens):
                    break
            path, more = [*trail, *tokens], written + b"".join(self._ranks.pieces[token] for token in tokens)

    def _options(self, state: Any, text: bytes, more: bytes, *, first: bool) -> list[list[int]]:
        """What to try next in a state, most promising first."""
        import numpy as np

        scan = self._scanned(text, more) if self._json else None
        found = self._jumps(text + more, scan, first=first)
        if len(found) >= _TRIED:
            return found
        forced = [] if found else state.compute_ff_tokens()
        if forced:
            return [list(forced)]
        mask = np.unpackbits(np.frombuffer(state.compute_bitmask(), dtype=np.uint8), bitorder="little")
        return [*found, *([token] for token in self._best(mask, scan))]

    def _scanned(self, text: bytes, more: bytes) -> Scan:
        """A text's scan. The text before has been followed already: only what is new since costs time."""
        if not text.startswith(self._followed):
            self._followed, self._scan = b"", Scan(0)
        self._scan.feed(text[len(self._followed) :])
        self._followed = text
        scan = self._scan.copy()
        scan.feed(more)
        return scan

    def _checked(self, text: bytes) -> bool:
        """Whether the validator accepts a text, which matters for JSON, where the masks can't see everything."""
        if not self._guide.checked and not self._json:
            return True
        return not self._guide.problem(text.decode("utf-8", "replace"))

    def _jumps(self, text: bytes, scan: Scan | None, *, first: bool) -> list[list[int]]:
        """Whole endings of a string or text under a regex, the shortest first."""
        if self._whole is not None:
            end = self._ending(self._whole, text.decode("utf-8", "ignore")) if first else None
            return [] if end is None else [self._ranks.tokenize(end.encode())]
        inside = scan.open_string() if scan is not None else None
        # A string is looked at when it begins, or where the search begins inside it.
        if inside is None or (inside[0] and not first):
            return []
        begun, keys = inside
        # Closing at once is the shortest ending of a string that may have any content.
        found = {"", *(end for shape in self._shapes for end in self._endings(shape, begun, keys))}
        ends = sorted(found, key=lambda one: (len(one), one))[:_JUMPS]
        if keys is not None:
            # Required keys first; any other key only leads further from the end.
            names = [name[len(begun) :] for name in self._names if name.startswith(begun)]
            ends = [end for end in (*names, *ends, *map(str, range(len(keys) + 1))) if begun + end not in keys]
        return [self._ranks.tokenize(as_json(end)) for end in ends]

    def _ending(self, shape: Shape, begun: str) -> str | None:
        """The shortest ending of a string. Its automaton goes on from where the last search left it."""
        before, states = self._reached.get(shape, ("", None))
        if states is None or not begun.startswith(before):
            before, states = "", shape.start
        states = shape.after(states, begun[len(before) :])
        if begun:
            self._reached[shape] = begun, states
        return shape.shortest(states)

    def _endings(self, shape: Shape, begun: str, keys: Collection[str] | None) -> Iterator[str]:
        """The shortest ending of a string; for a key also some that differ from the object's other keys."""
        end = self._ending(shape, begun)
        if end is None:
            return
        yield end
        if keys and end and begun + end in keys:
            yield from (other for char in _VARIED if shape.ending(begun + (other := end[:-1] + char)) == "")

    def _best(self, mask: Any, scan: Scan | None) -> list[int]:
        """The allowed tokens to try, most promising first."""
        import numpy as np

        order = self._ranks.inside if scan is not None and scan.in_string else self._ranks.outside
        key = scan.open_string() if scan is not None and self._required else None
        if key is None or key[1] is None:
            best: list[int] = []
            # The first tokens of a large vocabulary are usually enough.
            for start, end in ((0, 1024), (1024, len(order))):
                part = order[start:end]
                best += part[np.flatnonzero(mask[part])[:_TRIED]].tolist()
                if len(best) >= _TRIED:
                    break
            return best[:_TRIED]
        allowed = order[np.flatnonzero(mask[order])]
        begun = json.dumps(key[0], ensure_ascii=False)[1:-1].encode()
        names = [name[len(begun) :] for name in self._required if name.startswith(begun)]
        pieces = self._ranks.pieces
        wanted = [int(i) for i in allowed if pieces[i] and any(name.startswith(pieces[i]) for name in names)]
        wanted.sort(key=lambda i: -len(pieces[i]))
        return [*wanted[:_TRIED], *(int(i) for i in allowed[:2])]


def _required(schema: Any) -> tuple[bytes, ...]:
    """The keys that any object in the schema requires or has in `propertyNames`, as JSON with the closing quote."""
    found: dict[bytes, None] = {}

    def look(node: Any, *, names: bool) -> None:
        if isinstance(node, dict):
            listed = [node.get("required"), *((node.get("enum"), [node.get("const")]) if names else ())]
            for name in (name for some in listed if isinstance(some, list) for name in some):
                if isinstance(name, str):
                    found[json.dumps(name, ensure_ascii=False)[1:].encode()] = None
            for key, value in node.items():
                look(value, names=names or key == "propertyNames")
        elif isinstance(node, list):
            for value in node:
                look(value, names=names)

    look(schema, names=False)
    return tuple(found)
