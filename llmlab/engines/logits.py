"""The check of a model's logits, in the words of both engines."""

from __future__ import annotations

import math

from llmlab.errors import GenerationError, LoadError


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
