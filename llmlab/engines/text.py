"""Incremental detokenization: complete characters only, without stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Turns the bytes of tokens into text that can be shown.

    Bytes of an incomplete character are held back, and so is text that may be the start of a
    stop string. Text that was returned is never retracted.

    Args:
        stop: strings that end the text; they never appear in it.
        accepts: whether the text may end before a stop string; if it returns False, that stop string is ignored.
        begun: the text before the first token, of which `accepts` is also told.
    """

    __slots__ = ("_accepts", "_decoder", "_given", "_held", "_partial", "_stop", "stopped")

    def __init__(self, stop: Sequence[str] = (), accepts: Callable[[str], bool] | None = None, begun: str = "") -> None:
        self._accepts = accepts
        self._given = begun
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = False
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes, *, may_stop: bool = True) -> str:
        """Add a token's bytes.

        Args:
            piece: the bytes.
            may_stop: a stop string that these bytes complete ends the text; False is for the first `min_tokens`.

        Returns:
            The text that can be shown now. After a stop string `stopped` is True and the text ends before it.
        """
        text = self._decode(piece)
        return self._match(text, may_stop=may_stop) if self._stop else text

    def _decode(self, piece: bytes) -> str:
        """The characters that are complete now."""
        if not self._partial:
            try:
                return piece.decode()  # the usual case, and much faster than the decoder
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(piece)
        self._partial = bool(self._decoder.getstate()[0])
        return text

    def resume(self, partial: bytes) -> None:
        """Begin within a character, of which these are the first bytes."""
        if partial:
            self._decode(partial)

    def flush(self) -> str:
        """End the text: return a held back possible stop string. Bytes of an incomplete character are dropped."""
        text, self._held = self._held, ""
        return text

    def _match(self, new: str, *, may_stop: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0 and may_stop]
        if found and self._accepts is not None:
            every = sorted({at for stop in self._stop for at in range(len(text)) if text.startswith(stop, at)})
            found = [at for at in every if self._accepts(self._given + text[:at])][:1]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        split = len(text) - keep
        self._held = text[split:]
        if self._accepts is not None:
            self._given += text[:split]
        return text[:split]


def partial_character(data: bytes) -> bytes:
    """The first bytes of a character that is incomplete at the end."""
    for size in range(1, min(len(data), 3) + 1):
        first = data[-size]
        if first >= 0xC0:  # the first byte of a character of several bytes
            return data[-size:] if size < (2 if first < 0xE0 else 3 if first < 0xF0 else 4) else b""
    return b""


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
