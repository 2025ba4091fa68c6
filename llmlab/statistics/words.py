"""A paired comparison in words: what differs, or what the data can't tell and which n would show."""

from __future__ import annotations

import math

from llmlab.render import units
from llmlab.statistics.estimates import number
from llmlab.statistics.pairs import Paired


def sentence(a: str, b: str, score: str, found: Paired, *, see: float | None = None, unit: str = "prompt") -> str:
    """A comparison in one or two sentences.

    Args:
        a: the first variant's name.
        b: the second's.
        score: what was scored.
        found: the comparison of a's scores with b's.
        see: the difference for which the necessary number of pairs is named; None: the sentence says which one these
            would show.
        unit: what a pair is.

    Returns:
        The sentences.

    Example:
        >>> found = llmlab.statistics.paired([1] * 10 + [0] * 10, [0] * 20)
        >>> print(llmlab.statistics.sentence("F16", "Q2_K", "exact", found))
        F16 scores higher than Q2_K on exact: 0.500 against 0.000, a difference of 0.500 [0.243, 0.701] on 20 prompts
        (McNemar, exact; p = 0.002; Cohen's g = 0.50).
    """
    many = found.comparisons > 1
    p = found.adjusted if many else found.p
    after = f" after Holm's correction for {found.comparisons} comparisons" if many else ""
    prompts = units.count(found.n, unit)
    facts = f"{found.test}; p {_p(p)}{after}"
    means = f"{number(found.a.value)} against {number(found.b.value)}"
    gap = f"a difference of {number(found.difference.value)}{_ends(found)} on {prompts}"
    if found.different:
        way = "higher" if found.difference.value > 0 else "lower"
        effect = f"{found.effect_name} = {found.effect:.2f}" if math.isfinite(found.effect) else ""
        parts = "; ".join(part for part in (facts, effect) if part)
        return f"{a} scores {way} than {b} on {score}: {means}, {gap} ({parts})."
    tell = f"The data can't tell whether {a} and {b} differ on {score}: {means}, {gap} ({facts})."
    if see is not None:
        return f"{tell} To see a difference of {number(see)} would need about {found.needed(see):,} {unit}s."
    size = found.visible()
    if not size:
        return f"{tell} Their scores are the same on every {unit}."
    return (
        f"{tell} {prompts} would show a difference of about {number(size)}; for half of that, "
        f"about {found.needed(size / 2):,} are needed."
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.0995 else f"= {value:.2f}"


def _ends(found: Paired) -> str:
    low, high = found.difference.low, found.difference.high
    return "" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]"
