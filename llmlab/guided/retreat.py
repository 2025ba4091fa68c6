"""Where to go back to in a text that violates its constraint: the last choices before the place that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from json import decoder as json_decoder
from typing import Any

from llmlab.guided.guide import Guide

TRIES = 32
"""How often a text is generated again, from some point on, before the request fails."""


class Retreat:
    """The tries of one sequence.

    Args:
        guide: its constraint.
        matcher: returns a matcher at the beginning of the text.
        piece: a token's bytes.
        size: the vocabulary's size.
    """

    def __init__(self, guide: Guide, matcher: Callable[[], Any], piece: Callable[[int], bytes], size: int) -> None:
        self._guide = guide
        self._matcher = matcher
        self._piece = piece
        self._size = size
        self.tries = 0
        self.bans: dict[int, set[int]] = {}
        self._furthest = -1
        self._streak = 0

    def ban(self, position: int, tokens: Sequence[int]) -> None:
        """Exclude tokens at a position; what was excluded after it no longer holds."""
        self.bans = {at: banned for at, banned in self.bans.items() if at <= position}
        self.bans.setdefault(position, set()).update(tokens)

    def back(self, text: str, tokens: Sequence[int], begun: int = 0) -> int | None:
        """The number of tokens to keep; the next one is excluded there. None if there is no other way to try.

        Args:
            text: the text that violates the constraint.
            tokens: its tokens, with the end token if that ended it.
            begun: bytes of the text before the first token.
        """
        self.tries += 1
        if self.tries > TRIES:
            return None
        first, last = self._tokens_of(text, tokens, begun)
        self._streak = 0 if first > self._furthest else self._streak + 1
        self._furthest = max(self._furthest, first)
        for start in (first, 0):
            places = self._choices(tokens, start, last)
            if places:
                # Nearby choices first, then ever earlier ones: the cause may be far before the place.
                position: int = places[-min(2 ** (self._streak % 8), len(places))]
                self.ban(position, (tokens[position],))
                return position
        return None

    def any_left(self, matcher: Any, position: int) -> bool:
        """Whether a matcher allows a token that isn't excluded at its position."""
        import numpy as np

        mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        mask[list(self.bans.get(position, ()))] = 0
        return bool(mask.any())

    def back_from_dead_end(self, tokens: Sequence[int]) -> int | None:
        """`back` for a text that no token can continue: to the last choice."""
        self.tries += 1
        places = self._choices(tokens, 0, len(tokens) - 1) if self.tries <= TRIES else []
        if not places:
            return None
        self.ban(places[-1], (tokens[places[-1]],))
        return places[-1]

    def _tokens_of(self, text: str, tokens: Sequence[int], begun: int) -> tuple[int, int]:
        """The first and last token of the place that is wrong."""
        start, end = _span(text, self._guide.where(text))
        start, end = len(text[:start].encode()), len(text[:end].encode())
        at, first, last = begun, 0, len(tokens) - 1
        for place, token in enumerate(tokens):
            after = at + len(self._piece(token))
            if at <= start < after:
                first = place
            if at < end <= after and end < len(text.encode()):
                last = place
            at = after
        return first, max(first, last)

    def _choices(self, tokens: Sequence[int], first: int, last: int) -> list[int]:
        """The positions where another token is possible."""
        import numpy as np

        matcher = self._matcher()
        found = []
        for place, token in enumerate(tokens[: last + 1]):
            # Every step computes a mask: see `follow`.
            mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
            if place >= first:
                gone = {token, *self.bans.get(place, ())}
                if int(mask[: self._size].sum()) > sum(bool(mask[one]) for one in gone):
                    found.append(place)
            if not matcher.is_stopped() and not matcher.consume_token(token):
                break
        return found


def _span(text: str, path: Sequence[str | int]) -> tuple[int, int]:
    """Start and end of a value in a JSON text; the whole text if it isn't found."""
    decoder = json.JSONDecoder()
    try:
        at = _skip(text, 0)
        for step in path:
            at = _child(text, at, step, decoder)
        return at, decoder.raw_decode(text, at)[1]
    except (ValueError, IndexError, StopIteration):
        return 0, len(text)


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _child(text: str, at: int, step: str | int, decoder: json.JSONDecoder) -> int:
    opening = text[at]
    at, place = _skip(text, at + 1), 0
    while text[at] not in "]}":
        key: str | int = place
        if opening == "{":
            key, at = json_decoder.scanstring(text, at + 1)  # type: ignore[attr-defined]
            at = _skip(text, _skip(text, at) + 1)
        if key == step:
            return at
        at = _skip(text, decoder.raw_decode(text, at)[1])
        at, place = (_skip(text, at + 1) if text[at] == "," else at), place + 1
    raise IndexError(step)
