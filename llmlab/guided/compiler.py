"""A guide against a vocabulary: compiled once, kept, and run as a token mask for one sequence at a time."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from llmlab.errors import BadInputError, GenerationError, UnsupportedError
from llmlab.guided.closing import Ranks
from llmlab.guided.guide import Guide

COMPILE_LIMIT_S = 10.0
"""A constraint that takes longer to compile is refused."""
_KEEP = 64
# "Few" allowed tokens are less than one in so many.
_FEW = 16


class Vocabulary:
    """A tokenizer as the mask library wants to see it.

    Args:
        tokens: each token's bytes, a special token's with 0xff in front.
        special: the ids of special tokens.
        ends: the ids that end a text, the main one first.
        encode: from text to token ids; without it, bytes stand for themselves.
    """

    def __init__(
        self,
        tokens: list[bytes],
        special: Sequence[int],
        ends: Sequence[int],
        encode: Callable[[str], list[int]] | None = None,
    ) -> None:
        if len(tokens) == 256 and not special:
            tokens, special = [*tokens, b"\xff<end>"], (256,)
        self.tokens = tokens
        self.special_token_ids = list(special)
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.is_tokenizer_wrapper = True
        self._encode = encode

    def __call__(self, text: bytes | str) -> list[int]:
        """Token ids of a text or of bytes."""
        data = text.encode() if isinstance(text, str) else bytes(text)
        if self._encode is None:
            return list(data)
        return self._encode(data.decode("utf-8", "replace"))


class Compiler:
    """Compiles guides for one tokenizer and keeps what it compiled. Safe from any thread.

    Args:
        build: makes the library's LLTokenizer; called at first use (it takes up to a second).
        limit_s: seconds after which a constraint is refused.
    """

    def __init__(self, build: Callable[[], Any], limit_s: float = COMPILE_LIMIT_S) -> None:
        self._build = build
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._ranks: Ranks | None = None
        self._made: OrderedDict[str, Any] = OrderedDict()

    @property
    def tokenizer(self) -> Any:
        """The library's view of the vocabulary."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._built()
            return self._tokenizer

    def _built(self) -> Any:
        try:
            return self._build()
        except BaseException as error:
            # A panic in the library's Rust code: PyO3 derives it from BaseException, past every `except Exception`.
            if type(error).__name__ != "PanicException":
                raise
            raise UnsupportedError(
                f"Guided generation can't use this model's vocabulary: {error}.", "Generate without a constraint."
            ) from error

    @property
    def ranks(self) -> Ranks:
        """The vocabulary's tokens in the order in which they end a text."""
        tokenizer = self.tokenizer
        with self._lock:
            if self._ranks is None:
                self._ranks = Ranks(tokenizer)
            return self._ranks

    def compile(self, guide: Guide) -> float:
        """Get a guide ready.

        Returns:
            Seconds it took; 0 when it was ready.

        Raises:
            BadInputError: it takes too long.
            UnsupportedError: it can't be followed with this vocabulary.
        """
        with self._lock:
            if guide.digest in self._made:
                self._made.move_to_end(guide.digest)
                return 0.0
        started = time.perf_counter()
        made = self._in_time(guide)
        if made.is_error():
            raise UnsupportedError(f"The constraint can't be followed: {_line(made.get_error())}.", "Make it simpler.")
        with self._lock:
            self._made[guide.digest] = made
            while len(self._made) > _KEEP:
                self._made.popitem(last=False)
        return time.perf_counter() - started

    def _in_time(self, guide: Guide) -> Any:
        from llguidance import LLMatcher

        tokenizer = self.tokenizer
        found: list[Any] = []

        def work() -> None:
            with contextlib.suppress(Exception):
                matcher = LLMatcher(tokenizer, guide.grammar(), log_level=0)
                if not matcher.is_error():
                    matcher.compute_bitmask()
                found.append(matcher)

        # The library lets go of the GIL, and its own limits end it: a thread that is left behind is not left for long.
        worker = threading.Thread(target=work, name="llmlab-grammar", daemon=True)
        worker.start()
        worker.join(self._limit_s)
        if not found:
            raise BadInputError(
                f"The constraint ({guide.name:.60}) isn't ready after {self._limit_s:g} s.",
                "Make it smaller: fewer alternatives, lower repeat counts.",
            )
        return found[0]

    def matcher(self, guide: Guide) -> Any:
        """A fresh matcher of a guide, for one sequence; compiles it when that wasn't done."""
        with self._lock:
            made = self._made.get(guide.digest)
        if made is None:
            self.compile(guide)
            return self.matcher(guide)
        return made.deep_copy()

    def accepts(self, guide: Guide, text: str) -> bool:
        """Whether a text is whole: the judge passes it; without a judge, the grammar does."""
        if guide.check is not None:
            return not guide.problem(text)
        matcher = self.matcher(guide)
        ids = self.tokenizer.tokenize_str(text)
        return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


def _line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[0].rstrip(".")[:240] if lines else "unknown reason"


class MaskRun:
    """One sequence under a guide: masks its logits, follows its tokens, notes what the mask did.

    Args:
        matcher: a matcher of its own.
        vocab_size: logits a row has.
        note: called with (token, chosen token's log probability, removed mass, the likeliest token, its log
            probability, whether only one token was allowed) after each token; None notes nothing.
        keep_raw: keep a copy of the raw logits of the current step in `raw`.
    """

    def __init__(
        self,
        matcher: Any,
        vocab_size: int,
        note: Callable[[int, float, float, int, float, bool], None] | None = None,
        *,
        keep_raw: bool = False,
    ) -> None:
        import numpy as np

        self.matcher = matcher
        self.raw: Any = None
        self._bits = np.zeros((vocab_size + 31) // 32, dtype=np.uint32)
        self._bytes = self._bits.view(np.uint8)
        self._address: int = self._bits.ctypes.data
        self._size = vocab_size
        self._note = note
        self._keep_raw = keep_raw
        self._seen: tuple[float, float, int, float, bool] | None = None
        self._logits: Any = None

    def blocked(self) -> Any:
        """Which tokens the guide forbids now: bool array, shape (vocabulary,).

        Raises:
            GenerationError: the library gave up (a limit of its parser).
        """
        import numpy as np

        self.matcher.unsafe_compute_mask_ptr(self._address, self._bytes.size)
        if self.matcher.is_error():
            raise GenerationError(
                f"The constraint became too complex to follow: {_line(self.matcher.get_error())}.", "Make it simpler."
            )
        np.bitwise_not(self._bytes, out=self._bytes)
        return np.unpackbits(self._bytes, count=self._size, bitorder="little").view(np.bool_)

    def mask(self, logits: Any) -> None:
        """Forbid what the guide forbids.

        Args:
            logits: raw logits, float32 array, shape (vocabulary,); changed in place.
        """
        import numpy as np

        blocked = self.blocked()
        if self._keep_raw:
            self.raw = logits.copy()
        if self._note is not None:
            self._seen = measure(logits, blocked)
        allowed = self._size - int(np.count_nonzero(blocked))
        if allowed * _FEW < self._size:
            # Between the fixed parts of a form few tokens may come: several times faster than a masked copy.
            places = np.flatnonzero(~blocked)
            kept = logits[places]
            logits.fill(-np.inf)
            logits[places] = kept
        else:
            np.minimum(logits, _limits().take(self._bytes, axis=0).reshape(-1)[: self._size], out=logits)
        self._logits = logits

    def take(self, token: int) -> None:
        """Follow the token that was chosen.

        Raises:
            GenerationError: the guide doesn't allow it.
        """
        seen = self._seen
        if self._note is not None and seen is not None:
            removed, norm, wanted, best, only = seen
            self._note(token, float(self._logits[token]) - norm, removed, wanted, best - norm, only)
            self._seen = None
        if not self.matcher.is_stopped() and not self.matcher.consume_token(token):
            raise GenerationError(
                f"The constraint could not be followed: {_line(self.matcher.get_error())}.", "Make it simpler."
            )

    @property
    def over(self) -> bool:
        """Nothing but the end may come now."""
        return bool(self.matcher.is_stopped())


@functools.cache
def _limits() -> Any:
    """For each byte of a mask of forbidden tokens, what its eight logits may be at most: float32, shape (256, 8)."""
    import numpy as np

    forbidden = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.bool_)
    return np.where(forbidden, np.float32(-np.inf), np.float32(np.inf))


def measure(logits: Any, blocked: Any) -> tuple[float, float, int, float, bool]:
    """What a mask does to a distribution.

    Args:
        logits: raw logits, float32 array, shape (vocabulary,).
        blocked: bool array, shape (vocabulary,).

    Returns:
        The probability removed (0 to 1), the log of the softmax's sum, the likeliest token, its logit, and whether
        only one token is left.
    """
    import numpy as np

    wanted = int(logits.argmax())
    best = float(logits[wanted])
    weights = np.exp(logits - best)
    shut = blocked.view(np.uint8)
    total = float(weights.sum())
    removed = min(float(weights.dot(shut.astype(np.float32))) / total, 1.0)
    return removed, best + float(np.log(total)), wanted, best, int(shut.size - np.count_nonzero(shut)) == 1
