"""RoPE scaling: a context longer than the trained one, with the same options in every engine.

yarn: Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models" (arXiv:2309.00071), as in
transformers. linear: all positions are divided by the factor (arXiv:2306.15595).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmlab.errors import BadInputError, unknown

KINDS = ("none", "linear", "yarn")
OPTIONS: dict[str, tuple[type, str]] = {
    "rope_scaling": (str, "RoPE scaling for a longer context: none, linear or yarn (default: the model's)"),
    "rope_factor": (float, "with rope_scaling: how many times longer the context gets, for example 4"),
    "rope_original_context": (int, "with rope_scaling: the context before the scaling (default: the trained one)"),
    "yarn_beta_fast": (float, "with yarn: rotations above which a dimension isn't scaled (default 32)"),
    "yarn_beta_slow": (float, "with yarn: rotations below which a dimension is scaled in full (default 1)"),
}


@dataclass(frozen=True, slots=True)
class Rope:
    """A scaling that replaces the model's own.

    Attributes:
        kind: none, linear or yarn.
        factor: how many times longer the context gets; 1 for none.
        original: context length before the scaling.
        beta_fast: rotations over the original context above which a dimension isn't scaled.
        beta_slow: rotations below which a dimension is scaled in full.
    """

    kind: str
    factor: float
    original: int
    beta_fast: float
    beta_slow: float

    @property
    def context_length(self) -> int:
        """The longest context with this scaling."""
        return int(self.original * self.factor)


def rope_of(extra: Mapping[str, Any], trained: int) -> Rope | None:
    """The scaling that a load's options ask for; None leaves the model's own.

    Args:
        extra: the options.
        trained: the trained context length; 0 if unknown.

    Raises:
        BadInputError: a value is out of its range, or options don't go together.
    """
    given = [name for name in OPTIONS if name in extra]
    if not given:
        return None
    kind = extra.get("rope_scaling")
    if kind is None:
        raise BadInputError(f"-x {given[0]} needs -x rope_scaling.", f"-x rope_scaling=yarn -x {given[0]}=...")
    if kind not in KINDS:
        raise unknown("value of rope_scaling", kind, KINDS)
    others = [name for name in given if name.startswith("yarn_")]
    if kind != "yarn" and others:
        raise BadInputError(f"-x {others[0]} needs rope_scaling=yarn, got {kind}.")
    if "rope_freq_scale" in extra:
        raise BadInputError("-x rope_freq_scale and rope_scaling set the same.", "Use rope_factor, its inverse.")
    factor, original = extra.get("rope_factor"), extra.get("rope_original_context", trained)
    if kind == "none":
        if factor is not None:
            raise BadInputError("-x rope_factor has no effect with rope_scaling=none.", "Leave one of them out.")
        return Rope(kind, 1.0, original, 32.0, 1.0)
    if factor is None or not 1 <= factor <= 1024:
        raise BadInputError(
            f"-x rope_scaling={kind} needs -x rope_factor, a number from 1 to 1024"
            + (f", got {factor:g}." if factor is not None else "."),
            "For example rope_factor=4 for four times the trained context.",
        )
    if original < 1:
        raise BadInputError("The model's trained context is unknown.", "Set -x rope_original_context.")
    fast, slow = float(extra.get("yarn_beta_fast", 32.0)), float(extra.get("yarn_beta_slow", 1.0))
    if not 0 < slow < fast:
        raise BadInputError(f"yarn_beta_slow must be above 0 and below yarn_beta_fast, got {slow:g} and {fast:g}.")
    return Rope(kind, float(factor), original, fast, slow)
