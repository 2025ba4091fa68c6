"""Perplexity, KL divergence and top-1 agreement of two models on the same token ids.

As in llama.cpp's `llama-perplexity` (tools/perplexity/perplexity.cpp): the text is cut into non-overlapping windows of
n tokens, and the remainder is dropped. In each window the tokens after the first half are scored, so that each has at
least n/2 tokens of context. If the tokenizer puts BOS in front of a text, BOS replaces the first token of each window.
Logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError
from llmlab.statistics.estimates import bounded_mean, student

SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Windows:
    """A text cut for scoring.

    Attributes:
        ids: the windows' tokens, each of length `size`.
        size: tokens per window.
    """

    ids: tuple[tuple[int, ...], ...]
    size: int

    @property
    def first(self) -> int:
        """Position in a window of the token before the first scored one."""
        return self.size // 2

    @property
    def scored(self) -> int:
        """Number of scored tokens over all windows."""
        return len(self.ids) * (self.size - 1 - self.first)


def cut(ids: Sequence[int], *, size: int, most: int, bos: int | None = None) -> Windows:
    """Cut tokens into windows.

    Args:
        ids: the text's tokens.
        size: tokens per window; at most half the text, so that there are two windows.
        most: maximum number of windows, from the start.
        bos: the token that replaces each window's first token, or None.

    Raises:
        BadInputError: the text is too short to score.
    """
    size = min(size, len(ids) // 2)
    if size < SHORTEST:
        raise BadInputError(
            f"The text has {len(ids)} tokens; two windows of at least {SHORTEST} are needed.",
            "Use a longer text.",
        )
    count = min(len(ids) // size, most)
    windows = [list(ids[i * size : (i + 1) * size]) for i in range(count)]
    if bos is not None:
        for window in windows:
            window[0] = bos
    return Windows(tuple(tuple(window) for window in windows), size)


@dataclass(frozen=True, slots=True)
class Scores:
    """The results over all scored tokens; the divergences are None for the reference itself.

    Attributes:
        perplexity: exp of the mean negative log probability of the text's own tokens.
        kl_mean: mean over tokens of sum p ln(p / q), p the reference's distribution, q this one's; in nats.
        kl_p99: its 99th percentile.
        top1: share of tokens at which both have the same most likely token.
        nll: each window's mean negative log probability, for paired comparisons.
        intervals: figure -> low and high of its 95 % interval, over windows: tokens of one text aren't independent.
    """

    perplexity: float
    kl_mean: float | None = None
    kl_p99: float | None = None
    top1: float | None = None
    nll: tuple[float, ...] = ()
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Tally:
    """Accumulates the scores of windows."""

    def __init__(self) -> None:
        self._nll: list[Any] = []
        self._kl: list[Any] = []
        self._same: list[Any] = []

    def add(self, ids: Sequence[int], first: int, rows: Any, reference: Any = None) -> None:
        """Add a window.

        Args:
            ids: its tokens.
            first: as in `Windows`.
            rows: this model's log probabilities, shape (len(ids) - 1 - first, vocabulary).
            reference: the reference's, of the same shape; None when this is the reference.
        """
        _imports.load("numpy")
        import numpy as np

        own = np.asarray(ids[first + 1 :])
        self._nll.append(-rows[np.arange(len(own)), own].astype(np.float64))
        if reference is not None:
            self._kl.append(kl(reference, rows))
            self._same.append(reference.argmax(axis=1) == rows.argmax(axis=1))

    def result(self) -> Scores:
        """The figures over all windows."""
        _imports.load("numpy")
        import numpy as np

        nll = tuple(float(window.mean()) for window in self._nll)
        perplexity = float(np.exp(np.concatenate(self._nll).mean()))
        low, high = _ends(nll)
        intervals = {"perplexity": (float(np.exp(low)), float(np.exp(high)))}
        if not self._kl:
            return Scores(perplexity, nll=nll, intervals=intervals)
        each = np.concatenate(self._kl)
        same = float(np.concatenate(self._same).mean())
        low, high = _ends([float(window.mean()) for window in self._kl])
        intervals["kl_mean"] = (max(low, 0.0), high)
        shares = bounded_mean([float(window.mean()) for window in self._same])
        intervals["top1"] = (shares.low, shares.high)
        return Scores(perplexity, float(each.mean()), float(np.percentile(each, 99)), same, nll, intervals)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    found = student(values)
    return found.low, found.high


def kl(reference: Any, rows: Any) -> Any:
    """KL divergence of each row from the reference's, in nats: sum p (ln p - ln q).

    Args:
        reference: log probabilities ln p, shape (tokens, vocabulary).
        rows: log probabilities ln q, same shape.

    Returns:
        float64, shape (tokens,); negative values from rounding become 0.
    """
    _imports.load("numpy")
    import numpy as np

    width = min(reference.shape[1], rows.shape[1])
    p, q = reference[:, :width], rows[:, :width]
    return np.maximum((np.exp(p) * (p - q)).sum(axis=1, dtype=np.float64), 0.0)
