"""What both engines do with logits: check them, and give log probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmlab.errors import GenerationError, LoadError
from llmlab.types import TokenLogprob


def not_finite(peak: float, subject: str = "The model") -> GenerationError:
    """The error for logits whose maximum isn't finite: any token sampled from them is meaningless."""
    what = "NaN" if math.isnan(peak) else "infinity"
    return GenerationError(
        f"{subject} computes {what} instead of logits: its weights are damaged, or overflow its dtype.",
        "Download the files again with %llm pull, or load it with another dtype or quant.",
    )


def load_error(name: str, engine: str, error: GenerationError, log_tail: str) -> LoadError:
    """The same error for a load, which checks the first step's logits."""
    return LoadError(
        f"{engine} can't load {name}: {error.message[0].lower()}{error.message[1:]}",
        error.hint,
        log_tail=log_tail,
    )


def token_logprob(logits: Any, token: int, top: int, name: Callable[[int], str], piece: bytes) -> TokenLogprob:
    """Log probabilities (natural log) of the chosen token and the likeliest ones, from raw logits.

    Args:
        logits: float32 array, shape (vocabulary,).
        token: the chosen token's id.
        top: how many of the likeliest to list.
        name: returns a token id's text.
        piece: the chosen token's bytes in the text.
    """
    import numpy as np

    peak = float(logits.max())
    exact = logits.astype(np.float64)
    exact -= peak
    norm = peak + float(np.log(np.exp(exact, out=exact).sum()))
    best: tuple[tuple[int, str, float], ...] = ()
    if top > 0:
        top = min(top, len(logits))
        ids = np.flatnonzero(logits >= np.partition(logits, -top)[-top])
        # Ties go to the lower id, as in greedy sampling.
        ids = ids[np.argsort(-logits[ids], kind="stable")][:top]
        best = tuple((int(i), name(int(i)), float(logits[i]) - norm) for i in ids)
    return TokenLogprob(token, name(token), float(logits[token]) - norm, best, list(piece))
