"""Compile guides for a vocabulary, cache them, and apply them as token masks, one sequence at a time."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from llmlab.errors import BadInputError, GenerationError, UnsupportedError
from llmlab.guided.closing import Closer, Ranks, follow
from llmlab.guided.guide import Guide

COMPILE_LIMIT_S = 10.0
"""A constraint that takes longer to compile is refused."""
_KEEP = 64
_NUMERIC = frozenset(bytes([code]) for code in b"0123456789.eE+-")
# Fewer than one allowed token in this many counts as few.
_FEW = 16


class Vocabulary:
    """A tokenizer in the form that the mask library (llguidance) takes.

    Args:
        tokens: each token's bytes; special tokens are prefixed with 0xff.
        special: the ids of special tokens.
        ends: the ids that end a text, the main one first.
        encode: text -> token ids; without it, each byte is its own id.
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
        """Token ids of text or bytes."""
        data = text.encode() if isinstance(text, str) else bytes(text)
        if self._encode is None:
            return list(data)
        return self._encode(data.decode("utf-8", "replace"))


class Compiler:
    """Compiles guides for one tokenizer and caches them. Thread-safe.

    Args:
        build: makes llguidance's LLTokenizer; called at first use (takes up to a second).
        limit_s: seconds after which compilation is given up and the constraint refused.
    """

    def __init__(self, build: Callable[[], Any], limit_s: float = COMPILE_LIMIT_S) -> None:
        self._build = build
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._ranks: Ranks | None = None
        self._made: OrderedDict[str, Any] = OrderedDict()
        self._endings: OrderedDict[tuple[str, str], tuple[int, ...]] = OrderedDict()
        self.piece = functools.lru_cache(maxsize=4096)(self._piece)
        """A token's bytes in a text."""
        self.containing = functools.lru_cache(maxsize=16)(self._containing)
        """The tokens whose bytes contain one of the texts, given as a tuple."""

    def _piece(self, token: int) -> bytes:
        return bytes(self.tokenizer.decode_bytes([token]))

    @functools.cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of all tokens."""
        tokenizer = self.tokenizer
        return [bytes(tokenizer.decode_bytes([token])) for token in range(tokenizer.vocab_size)]

    @functools.cached_property
    def quoting(self) -> tuple[int, ...]:
        """The tokens that contain a quotation mark."""
        return tuple(i for i, piece in enumerate(self.pieces) if b'"' in piece)

    @functools.cached_property
    def numeric(self) -> tuple[int, ...]:
        """The tokens that continue a number."""
        return tuple(i for i, piece in enumerate(self.pieces) if piece[:1] in _NUMERIC)

    def _containing(self, texts: tuple[str, ...]) -> frozenset[int]:
        if not texts:
            return frozenset()
        found = re.compile(b"|".join(re.escape(text.encode()) for text in texts))
        return frozenset(i for i, piece in enumerate(self.pieces) if found.search(piece))

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
            # A panic in the library's Rust code: PyO3 derives it from BaseException, so `except Exception` misses it.
            if type(error).__name__ != "PanicException":
                raise
            raise UnsupportedError(
                f"Guided generation can't use this model's vocabulary: {error}.", "Generate without a constraint."
            ) from error

    @property
    def ranks(self) -> Ranks:
        """The vocabulary's tokens, ranked by how well they end a text."""
        tokenizer, pieces = self.tokenizer, self.pieces
        with self._lock:
            if self._ranks is None:
                self._ranks = Ranks(tokenizer, pieces)
            return self._ranks

    def compile(self, guide: Guide) -> float:
        """Compile a guide.

        Returns:
            Seconds it took; 0 if it was in the cache.

        Raises:
            BadInputError: compilation takes too long.
            UnsupportedError: the guide can't be enforced with this vocabulary.
        """
        with self._lock:
            if guide.digest in self._made:
                self._made.move_to_end(guide.digest)
                return 0.0
        started = time.perf_counter()
        made = self._in_time(guide)
        if made.is_error():
            raise UnsupportedError(f"The constraint can't be enforced: {_line(made.get_error())}.", "Make it simpler.")
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

        # The library releases the GIL, and its own limits end the work: an abandoned thread ends soon.
        worker = threading.Thread(target=work, name="llmlab-grammar", daemon=True)
        worker.start()
        worker.join(self._limit_s)
        if not found:
            raise BadInputError(
                f"The constraint ({guide.name:.60}) did not compile within {self._limit_s:g} s.",
                "Make it smaller: fewer alternatives, lower repeat counts.",
            )
        return found[0]

    def matcher(self, guide: Guide) -> Any:
        """A new matcher for one sequence; compiles the guide if needed."""
        with self._lock:
            made = self._made.get(guide.digest)
        if made is None:
            self.compile(guide)
            return self.matcher(guide)
        return made.deep_copy()

    def forget(self, guide: Guide) -> None:
        """Compile a guide again at its next use.

        The copies of a matcher share its lexer: once one text has reached the lexer's limits, it fails for every text.
        """
        with self._lock:
            self._made.pop(guide.digest, None)

    def find_ending(self, guide: Guide, begun: str = "") -> None:
        """Find a short ending of a text for `ending`. It takes up to seconds: not for an engine's loop."""
        key = (guide.digest, begun)
        with self._lock:
            if key in self._endings:
                return
        matcher = self.matcher(guide)
        follow(matcher, self.tokenizer.tokenize_str(begun))
        way = Closer(self.ranks, guide).way(matcher, sys.maxsize, begun.encode())
        if matcher.is_error():
            self.forget(guide)
        with self._lock:
            self._endings[key] = tuple(way or ())
            while len(self._endings) > _KEEP:
                self._endings.popitem(last=False)

    def ending(self, guide: Guide, begun: str = "") -> tuple[int, ...]:
        """The tokens of the ending that `find_ending` found, the end token last; none if it found none."""
        with self._lock:
            return self._endings.get((guide.digest, begun), ())

    def begins(self, guide: Guide, text: str) -> bool:
        """Whether a text that the guide accepts can begin with this one."""
        ids = self.tokenizer.tokenize_str(text)
        return follow(self.matcher(guide), ids) == len(ids)

    def accepts(self, guide: Guide, text: str) -> bool:
        """Whether a text is complete: the validator accepts it or, without a validator, the grammar does."""
        if guide.check is not None:
            return not guide.problem(text)
        matcher = self.matcher(guide)
        ids = self.tokenizer.tokenize_str(text)
        return follow(matcher, ids) == len(ids) and bool(matcher.is_accepting())


def _line(message: str) -> str:
    lines = message.strip().splitlines()
    return lines[0].rstrip(".")[:240] if lines else "unknown reason"


class MaskRun:
    """One sequence under a guide: masks its logits, follows its tokens, records what the mask did.

    Args:
        matcher: the sequence's own matcher.
        vocab_size: logits per row.
        note: called after each token with (token, its log probability, removed probability mass, the most likely
            token, its log probability, whether only one token was allowed); None records nothing.
        keep_raw: keep a copy of the current step's raw logits in `raw`.
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

    def begin(self, tokens: Sequence[int]) -> None:
        """Advance by a text that the answer already has.

        Raises:
            GenerationError: the guide doesn't allow it.
        """
        if follow(self.matcher, tokens) != len(tokens):
            raise GenerationError("The constraint doesn't allow the text that the answer begins with.")

    def blocked(self) -> Any:
        """The tokens that the guide forbids now: bool array, shape (vocabulary,).

        Raises:
            GenerationError: the parser reached one of its limits.
        """
        import numpy as np

        self.matcher.unsafe_compute_mask_ptr(self._address, self._bytes.size)
        if self.matcher.is_error():
            raise GenerationError(
                f"The constraint became too complex to enforce: {_line(self.matcher.get_error())}.", "Make it simpler."
            )
        np.bitwise_not(self._bytes, out=self._bytes)
        return np.unpackbits(self._bytes, count=self._size, bitorder="little").view(np.bool_)

    def mask(self, logits: Any) -> None:
        """Mask the tokens that the guide forbids.

        Args:
            logits: raw logits, float32 array, shape (vocabulary,); modified in place.
        """
        import numpy as np

        blocked = self.blocked()
        if self._keep_raw:
            self.raw = logits.copy()
        if self._note is not None:
            self._seen = measure(logits, blocked)
        allowed = self._size - int(np.count_nonzero(blocked))
        if allowed * _FEW < self._size:
            # Often only a few tokens are allowed; copying those is several times faster than masking all.
            places = np.flatnonzero(~blocked)
            kept = logits[places]
            logits.fill(-np.inf)
            logits[places] = kept
        else:
            np.minimum(logits, _limits().take(self._bytes, axis=0).reshape(-1)[: self._size], out=logits)
        self._logits = logits

    def take(self, token: int) -> None:
        """Advance by the sampled token.

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
                f"The constraint could not be enforced: {_line(self.matcher.get_error())}.", "Make it simpler."
            )

    def restart(self, matcher: Any, tokens: Sequence[int]) -> None:
        """Go back to an earlier state.

        Args:
            matcher: a matcher at the beginning of the text.
            tokens: the tokens that are kept.
        """
        follow(matcher, tokens)
        self.matcher, self._seen = matcher, None

    @property
    def over(self) -> bool:
        """Whether only the end token is allowed now."""
        return bool(self.matcher.is_stopped())


@functools.cache
def _limits() -> Any:
    """For each byte of a mask of forbidden tokens, the upper limits of its eight logits: float32, shape (256, 8)."""
    import numpy as np

    forbidden = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.bool_)
    return np.where(forbidden, np.float32(-np.inf), np.float32(np.inf))


def measure(logits: Any, blocked: Any) -> tuple[float, float, int, float, bool]:
    """Measure what a mask does to a distribution.

    Args:
        logits: raw logits, float32 array, shape (vocabulary,).
        blocked: bool array, shape (vocabulary,).

    Returns:
        The probability removed (0 to 1), the log of the softmax's sum, the most likely token, its logit, and whether
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
