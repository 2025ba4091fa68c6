"""The probability of each option of a choice: how a classifier reads a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided.grammar import choice_guide
from llmlab.guided.guide import Guide
from llmlab.types import Completion, Probabilities


def option_guides(guide: Guide | None) -> list[Guide]:
    """A guide for each option of a choice, which allows only that one.

    Raises:
        BadInputError: the guide isn't a choice.
    """
    if guide is None or not guide.choices:
        raise BadInputError(
            "probabilities needs a choice between texts.", 'For example choice=["yes", "no"], probabilities=True.'
        )
    return [choice_guide([text]) for text in guide.choices]


def check_engine(engine: object, name: str) -> None:
    """Refuse an engine that can't report the model's own distribution under a constraint."""
    if not getattr(engine, "measures_guides", False):
        raise UnsupportedError(
            f"{name} can't give the probabilities of options here: it doesn't report the model's distribution under a "
            "constraint.",
            "Load the model in llamacpp, or in vllm without a draft on the CPU.",
        )


def probabilities(texts: Sequence[str], done: Sequence[Completion], ends: Collection[int]) -> Probabilities:
    """The probabilities of a choice's options.

    Args:
        texts: the options.
        done: for each option, the completion that was constrained to it.
        ends: the tokens that end a text.
    """
    raw: dict[str, float] = {}
    by_length: dict[str, float] = {}
    for text, one in zip(texts, done, strict=True):
        steps = one.guidance.steps if one.guidance is not None else ()
        own = [step for step in steps if step.token_id not in ends]
        # An option that another one continues must also end; for any other, what follows it doesn't matter.
        extends = any(other != text and other.startswith(text) for other in texts)
        counted = [*own, *(step for step in steps if step.token_id in ends)] if extends else own
        logs = [math.log(step.probability) if step.probability > 0 else -math.inf for step in counted]
        raw[text] = math.exp(sum(logs))
        by_length[text] = math.exp(sum(logs) / len(logs)) if logs else 0.0
    return Probabilities(_shares(raw), raw=raw, by_length=_shares(by_length))


def _shares(values: dict[str, float]) -> dict[str, float]:
    total = sum(values.values())
    return {key: value / total if total else 1 / len(values) for key, value in values.items()}
