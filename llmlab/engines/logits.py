"""The errors for logits that aren't finite, shared by both engines."""

from __future__ import annotations

import math

from llmlab.errors import GenerationError, LoadError


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
