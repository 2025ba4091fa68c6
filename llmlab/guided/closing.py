"""Complete a guided text within its token budget, along the shortest ending that a quick search finds."""

from __future__ import annotations

import json
import re
from typing import Any

from llmlab.guided.guide import Guide

# States visited per search, and tokens tried per state.
_EFFORT = 1500
_TRIED = 6
# A search is postponed while more tokens than this are to spare.
_SPARE = 64

_CLOSING = re.compile(rb'["}\]]+')
_STRINGS = re.compile(rb'[^"\\]|\\.|\\$', re.DOTALL)
_JOINING = re.compile(rb'[\s":,{}\[\]]*[":,}\]][\s":,{}\[\]]*')
_DIGIT = re.compile(rb"[0-9]")
_OPEN_KEY = re.compile(rb'[{,]\s*"([^"\\]*)$')


class Ranks:
    """The tokens of a vocabulary, ranked by how well they bring a text to its end.

    Args:
        tokenizer: llguidance's LLTokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        import numpy as np

        self.pieces: list[bytes] = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
        self.end: int = tokenizer.eos_token
        ids = range(len(self.pieces))
        outside = sorted(ids, key=lambda i: (_class(self.pieces[i]), len(self.pieces[i]), i))
        # Inside a string, only tokens that begin with a quote close anything.
        inside = sorted(outside, key=lambda i: not (_CLOSING.fullmatch(self.pieces[i]) and self.pieces[i][:1] == b'"'))
        self.outside, self.inside = np.array(outside, dtype=np.int64), np.array(inside, dtype=np.int64)


def _class(piece: bytes) -> int:
    if _CLOSING.fullmatch(piece):
        # `}]` closes in one token what `}` and `]` close in two; a quote would open a string here.
        return -len(piece) if piece[:1] != b'"' else 0
    if _JOINING.fullmatch(piece):
        return 1
    if _DIGIT.fullmatch(piece):
        return 2
    if len(piece) == 1 and not piece.isalnum() and not piece.isspace():
        return 3
    return 5 if piece.strip() and piece[:1].isspace() is False else 6


class Closer:
    """Tracks a sequence's token budget, and decides when and how to end it.

    Args:
        ranks: the vocabulary's tokens in closing order.
        guide: the sequence's constraint.
    """

    def __init__(self, ranks: Ranks, guide: Guide) -> None:
        self._ranks = ranks
        self._json = guide.kind == "json"
        self._required = _required(guide.schema) if guide.kind == "json" else ()
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
        if token == self._ranks.end or (self._check_at is not None and left > self._check_at):
            return None
        after = matcher.deep_copy()
        if not after.consume_token(token):
            return None
        way = self.way(after, left - 1, text + self._ranks.pieces[token])
        if way is not None:
            self._way = left - 1, way
            self._check_at = left - 1 - max(left - 1 - len(way) - _SPARE, 0)
            return None
        if self._way is not None and self._way[0] == left:
            return self._way[1]
        # No ending was known before either: the budget is too small, and searching at every token would waste time.
        self._check_at = left - 1 - left // 8
        return self.way(matcher.deep_copy(), left, text)

    def way(self, matcher: Any, budget: int, text: bytes = b"") -> list[int] | None:
        """Tokens that end the text, the end token last; None if no ending of at most `budget` tokens was found."""
        import numpy as np

        effort = _EFFORT
        # (matcher, tokens so far, text, candidates left)
        stack: list[tuple[Any, list[int], bytes, list[int]]] = []
        state, path = matcher, list[int]()
        while True:
            if state.is_accepting():
                return [*path, self._ranks.end] if len(path) < budget else None
            effort -= 1
            options: list[int] = []
            if len(path) + 1 < budget and effort > 0:
                mask = np.unpackbits(np.frombuffer(state.compute_bitmask(), dtype=np.uint8), bitorder="little")
                options = self._best(mask, text)
            stack.append((state, path, text, options))
            while stack and not stack[-1][3]:
                stack.pop()
            if not stack or effort <= 0:
                return None
            base, trail, written, options = stack[-1]
            token = options.pop(0)
            state = base.deep_copy()
            if not state.consume_token(token):
                state = base
                continue
            path, text = [*trail, token], written + self._ranks.pieces[token]

    def _best(self, mask: Any, text: bytes) -> list[int]:
        """The allowed tokens to try, most promising first."""
        import numpy as np

        in_string = self._json and len(_STRINGS.sub(b"", text)) % 2 == 1
        order = self._ranks.inside if in_string else self._ranks.outside
        allowed = order[np.flatnonzero(mask[order])]
        key = _OPEN_KEY.search(text[-200:]) if self._required else None
        if key is None:
            return [int(i) for i in allowed[:_TRIED]]
        begun = key[1]
        names = [name[len(begun) :] for name in self._required if name.startswith(begun)]
        pieces = self._ranks.pieces
        wanted = [int(i) for i in allowed if pieces[i] and any(name.startswith(pieces[i]) for name in names)]
        wanted.sort(key=lambda i: -len(pieces[i]))
        return [*wanted[:_TRIED], *(int(i) for i in allowed[:2])]


def _required(schema: Any) -> tuple[bytes, ...]:
    """All property names that any object in the schema requires, as JSON with the closing quote."""
    found: dict[bytes, None] = {}

    def look(node: Any) -> None:
        if isinstance(node, dict):
            names = node.get("required")
            for name in names if isinstance(names, list) else ():
                if isinstance(name, str):
                    found[json.dumps(name, ensure_ascii=False)[1:].encode()] = None
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    look(schema)
    return tuple(found)
