"""From tokens to text, step by step: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Turns the bytes of tokens into text that may be shown.

    Bytes of a character that isn't whole yet are held back, and so is text that may be the start of a
    stop string. What was given out is never taken back.

    Args:
        stop: strings that end the text; none of them ever appears in it.
        accepts: whether the text before a stop string may end there; where it says no, the string is passed over.
    """

    __slots__ = ("_accepts", "_decoder", "_given", "_held", "_partial", "_stop", "stopped")

    def __init__(self, stop: Sequence[str] = (), accepts: Callable[[str], bool] | None = None) -> None:
        self._accepts = accepts
        self._given = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = False
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes.

        Returns:
            The text that can be shown now. After a stop string `stopped` is True and the text ended before it.
        """
        text = self._whole(piece)
        return self._match(text) if self._stop else text

    def _whole(self, piece: bytes) -> str:
        """The whole characters that there are now."""
        if not self._partial:
            try:
                return piece.decode()  # nearly always, and much quicker than the decoder
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(piece)
        self._partial = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """End the text: what was held back as a possible stop string. Bytes of an incomplete character are dropped."""
        text, self._held = self._held, ""
        return text

    def _match(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
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


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the beginning of `stop` (all of it excluded)."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
