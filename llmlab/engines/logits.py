"""What both engines do with logits: check them, and give log probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmlab.errors import GenerationError, LoadError
from llmlab.types import TokenLogprob


def not_finite(peak: float, who: str = "The model") -> GenerationError:
    """The error for logits whose largest is no finite number: every token drawn from them is meaningless."""
    what = "NaN" if math.isnan(peak) else "infinity"
    return GenerationError(
        f"{who} computes {what} in place of logits: its weights are damaged, or too large for the number type.",
        "Fetch the files again with %llm pull, or load it with another dtype or quant.",
    )


def load_error(name: str, engine: str, error: GenerationError, log_tail: str) -> LoadError:
    """The same at a load, whose first step is checked."""
    return LoadError(
        f"{name} can't be loaded by {engine}: {error.message[0].lower()}{error.message[1:]}",
        error.hint,
        log_tail=log_tail,
    )


def token_logprob(logits: Any, token: int, top: int, name: Callable[[int], str], piece: bytes) -> TokenLogprob:
    """The natural-log softmax of raw logits, at the chosen token and at the likeliest ones.

    Args:
        logits: float32 array, shape (vocabulary,).
        token: the chosen token's id.
        top: how many of the likeliest to list.
        name: the text of a token id.
        piece: the chosen token's bytes in the text.
    """
    import numpy as np

    exact = logits.astype(np.float64)
    peak = exact.max()
    norm = peak + np.log(np.exp(exact - peak).sum())
    best: tuple[tuple[int, str, float], ...] = ()
    if top > 0:
        top = min(top, exact.shape[0])
        ids = np.argpartition(exact, -top)[-top:]
        # Ties go to the lower id, as greedy sampling has it.
        ids = ids[np.lexsort((ids, -exact[ids]))]
        best = tuple((int(i), name(int(i)), float(exact[i] - norm)) for i in ids)
    return TokenLogprob(token, name(token), float(exact[token] - norm), best, list(piece))
