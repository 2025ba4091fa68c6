"""Two variants on the same prompts: the paired difference, an exact or conservative test, and the n that is needed."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmlab import _imports
from llmlab.errors import BadInputError
from llmlab.statistics.estimates import (
    BOOTSTRAP_FROM,
    CONFIDENCE,
    Estimate,
    bootstrap,
    bounded_mean,
    is_share,
    mean,
    student,
)

LEVEL = 0.05
"""The probability with which equal variants may be called different."""
POWER = 0.8
FLIPS = 999
MORE_FLIPS = 19_999
# From this many counted flips on, FLIPS give a p-value that is precise enough.
_FEW = 8
# Up to this many differences all 2**n flips are counted.
_EXACT = 9
# What a p-value of sampled flips is the upper limit of: another seed wouldn't make it larger, in 99 of 100 cases.
_SURE = 0.99

Kind = Literal["yes/no", "number", "rating"]


@dataclass(frozen=True, slots=True)
class Paired:
    """Two variants' scores on the same prompts, compared.

    Attributes:
        a, b: each one's mean, with its interval.
        difference: the mean of a - b over the pairs, with its interval.
        p: the p-value of the test that both are equal; `adjusted` is corrected for the number of comparisons.
        test: the test's name.
        effect: the effect size, and `effect_name` what it is called.
        deviation: the standard deviation of the differences, from which `needed` is computed.

    Example:
        >>> found = llmlab.statistics.paired([1, 1, 1, 0], [1, 0, 1, 0])
        >>> found.test, found.difference.value, found.p, found.different
        ('McNemar, exact', 0.25, 1.0, False)
    """

    a: Estimate
    b: Estimate
    difference: Estimate
    p: float
    test: str
    effect: float
    effect_name: str
    deviation: float
    kind: Kind
    adjusted: float = math.nan
    comparisons: int = 1

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.difference.n

    @property
    def different(self) -> bool:
        """Whether the data show a difference, after the correction."""
        return (self.p if math.isnan(self.adjusted) else self.adjusted) <= LEVEL

    def needed(self, difference: float, *, power: float = POWER) -> int:
        """The number of pairs with which a difference of this size would be found.

        Args:
            difference: the true difference of the means.
            power: the probability of finding it.

        Returns:
            The number of pairs, by the normal approximation, at the level 0.05 without a correction.

        Example:
            >>> llmlab.statistics.paired([1, 0, 1, 0] * 5, [1, 1, 0, 0] * 5).needed(0.1)
            411
        """
        if difference == 0:
            raise BadInputError("No number of prompts shows a difference of 0.", "Name the smallest one of interest.")
        _imports.load("scipy.stats")
        import scipy.stats as stats

        level, found = float(stats.norm.ppf(1 - LEVEL / 2)), float(stats.norm.ppf(power))
        size = abs(difference)
        if self.kind == "yes/no":
            # The share of pairs that differ; none seen in n pairs still allows a few (Connor, 1987).
            differing = max(self.deviation**2 + self.difference.value**2, size, 1 / max(self.n, 1))
            return math.ceil(
                ((level * math.sqrt(differing) + found * math.sqrt(max(differing - size**2, 0))) / size) ** 2
            )
        return max(math.ceil(((level + found) * self.deviation / size) ** 2 + level**2 / 2), 2)

    def visible(self, *, power: float = POWER) -> float:
        """The difference that this number of pairs would show.

        Args:
            power: the probability of finding it.

        Returns:
            The difference of the means, by the normal approximation; 0 if all pairs are the same.

        Example:
            >>> round(llmlab.statistics.paired([1, 0, 1, 0] * 5, [1, 1, 0, 0] * 5).visible(), 2)
            0.45
        """
        _imports.load("scipy.stats")
        import scipy.stats as stats

        reach = float(stats.norm.ppf(1 - LEVEL / 2)) + float(stats.norm.ppf(power))
        return reach * self.deviation / math.sqrt(self.n)


def paired(a: Sequence[float], b: Sequence[float], *, kind: Kind | None = None, bounded: bool = False) -> Paired:
    """Compare two variants' scores on the same prompts.

    Args:
        a: one variant's scores, one per prompt (average repeats first).
        b: the other's, in the same order.
        kind: "yes/no" takes McNemar's exact test; "number" flips the signs of the differences; "rating" flips those
            of their ranks (Wilcoxon). None: yes/no if all scores are 0 or 1, else number.
        bounded: no score can be below 0 or above 1; then the means' intervals can't either (`mean`).

    Returns:
        The comparison.

    Raises:
        BadInputError: no pairs, or lists of different lengths.

    Example:
        >>> found = llmlab.statistics.paired([3.0, 4.0, 5.0, 4.0, 6.0, 5.0], [1.0, 2.0, 2.0, 3.0, 3.0, 1.0])
        >>> found.test, found.p
        ('sign flips, exact', 0.03125)
    """
    if len(a) != len(b) or not a:
        raise BadInputError(
            f"A paired comparison needs two lists of one length, got {len(a)} and {len(b)} scores.",
            "Score both variants on the same prompts.",
        )
    first, second = [float(one) for one in a], [float(one) for one in b]
    if any(math.isnan(one) for one in (*first, *second)):
        raise BadInputError("A score is NaN.", "Leave out the prompts without a score, in both lists.")
    chosen: Kind = kind or ("yes/no" if is_share([*first, *second]) else "number")
    if chosen == "yes/no" and not is_share([*first, *second]):
        raise BadInputError("Scores of kind yes/no must be 0 or 1.", "Average repeats, and compare them as numbers.")
    # Means of several scores differ in their last digit by the order of the sum alone.
    differences = [round(x - y, 12) for x, y in zip(first, second, strict=True)]
    test = {"yes/no": _mcnemar, "number": _sign_flips, "rating": _wilcoxon}[chosen]
    p, name, effect, effect_name = test(differences)
    difference = _newcombe(first, second) if chosen == "yes/no" else _interval(differences, bounded=bounded)
    one, other = (mean(scores, bounded=bounded) for scores in (first, second))
    return Paired(one, other, difference, p, name, effect, effect_name, _deviation(differences), chosen)


def holm(comparisons: Sequence[Paired]) -> list[Paired]:
    """Correct the p-values of several comparisons (Holm, 1979).

    Args:
        comparisons: all that were made to answer one question.

    Returns:
        The same comparisons, in order, with `adjusted` p-values.

    Example:
        >>> one = llmlab.statistics.paired([1] * 6, [0] * 6)
        >>> [found.adjusted for found in llmlab.statistics.holm([one, one])]
        [0.0625, 0.0625]
    """
    found = [math.nan] * len(comparisons)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(comparisons)), key=lambda i: comparisons[i].p)):
        highest = max(highest, min(comparisons[place].p * (len(comparisons) - rank), 1.0))
        found[place] = highest
    return [
        replace(one, adjusted=value, comparisons=len(comparisons))
        for one, value in zip(comparisons, found, strict=True)
    ]


# -- tests: each returns p, its name, the effect size and the effect's name -----------------------


def _mcnemar(differences: Sequence[float]) -> tuple[float, str, float, str]:
    """McNemar's test as an exact binomial test on the pairs that differ. It is conservative."""
    _imports.load("scipy.stats")
    import scipy.stats as stats

    more, less = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    changed = more + less
    p = float(stats.binomtest(more, changed).pvalue) if changed else 1.0
    return p, "McNemar, exact", more / changed - 0.5 if changed else 0.0, "Cohen's g"


def _sign_flips(differences: Sequence[float]) -> tuple[float, str, float, str]:
    p, exact = _flipped([one for one in differences if one])
    deviation, middle = _deviation(differences), math.fsum(differences) / len(differences)
    effect = middle / deviation if deviation else math.copysign(math.inf, middle) if middle else 0.0
    return p, f"sign flips, {'exact' if exact else 'sampled'}", effect, "Cohen's d"


def _wilcoxon(differences: Sequence[float]) -> tuple[float, str, float, str]:
    """Wilcoxon's signed ranks; ties share their ranks, and pairs without a difference don't count."""
    _imports.load("scipy.stats")
    import scipy.stats as stats

    changed = [one for one in differences if one]
    if not changed:
        return 1.0, "Wilcoxon, exact", 0.0, "rank-biserial r"
    ranks = [float(one) for one in stats.rankdata([abs(one) for one in changed])]
    signed = [math.copysign(rank, one) for rank, one in zip(ranks, changed, strict=True)]
    p, exact = _flipped(signed)
    return p, f"Wilcoxon, {'exact' if exact else 'sampled'}", math.fsum(signed) / math.fsum(ranks), "rank-biserial r"


def _flipped(values: Sequence[float]) -> tuple[float, bool]:
    """The p-value of a sum if each value's sign is arbitrary, and whether all flips were counted.

    Sampled flips give the upper limit of the p-value: so a difference is never claimed by the luck of the sampling,
    and equal variants are called different in fewer than 5 % of experiments.
    """
    if not values:
        return 1.0, True
    _imports.load("numpy", "scipy.stats")
    import numpy as np
    import scipy.stats as stats

    given = np.asarray(values, dtype=float)
    # Rounding must not make a sum smaller than the same sum in another order.
    bar = abs(given.sum()) * (1 - 1e-9)
    if len(given) <= _EXACT:
        sums = np.abs(_all_signs(len(given)) @ given)
        return float((sums >= bar).mean()), True
    count, tried = 0, 0
    for flips in (FLIPS, MORE_FLIPS):
        count, tried = _counted(given, bar, flips), flips
        if count >= _FEW:
            break
    return float(stats.beta.ppf(_SURE, count + 1, tried - count)) if count < tried else 1.0, False


def _counted(given: Any, bar: float, flips: int) -> int:
    """How many of a fixed set of random flips reach the observed sum."""
    _imports.load("numpy")
    import numpy as np

    rng = np.random.default_rng(len(given))
    count = 0
    # In parts, so that a thousand prompts don't take 160 MB.
    for start in range(0, flips, 1000):
        size = min(1000, flips - start)
        signs = rng.integers(0, 2, (size, len(given)), dtype=np.int8) * 2.0 - 1.0
        count += int((np.abs(signs @ given) >= bar).sum())
    return count


@functools.cache
def _all_signs(n: int) -> Any:
    _imports.load("numpy")
    import itertools

    import numpy as np

    return np.array(list(itertools.product((-1.0, 1.0), repeat=n)))


# -- intervals of a difference -----------------------------------------------------------------


def _deviation(differences: Sequence[float]) -> float:
    if len(differences) < 2:
        return 0.0
    middle = math.fsum(differences) / len(differences)
    return math.sqrt(math.fsum((one - middle) ** 2 for one in differences) / (len(differences) - 1))


def _interval(differences: Sequence[float], *, bounded: bool) -> Estimate:
    """A paired bootstrap; for a few pairs Student's interval, or that of bounded values."""
    if len(differences) >= BOOTSTRAP_FROM and _deviation(differences) > 0:
        _imports.load("numpy")
        import numpy as np

        return bootstrap(differences, np.mean)
    if not bounded:
        return student(differences)
    # From -1 to 1, to 0 to 1 and back.
    found = bounded_mean([(one + 1) / 2 for one in differences])
    value, low, high = (2 * one - 1 for one in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n, found.confidence)


def _newcombe(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """The interval of a difference of paired shares (Newcombe, 1998, method 10)."""
    n = len(a)
    both = sum(x * y for x, y in zip(a, b, strict=True))
    one, other = mean(a), mean(b)
    p, q = one.value, other.value
    scale = math.sqrt(p * (1 - p) * q * (1 - q))
    correlation = (both / n - p * q) / scale if scale else 0.0
    low, high = (one.value - one.low, other.high - other.value), (one.high - one.value, other.value - other.low)

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * correlation * x * y + y * y, 0.0))

    return Estimate(p - q, max(p - q - reach(*low), -1.0), min(p - q + reach(*high), 1.0), n, CONFIDENCE)
