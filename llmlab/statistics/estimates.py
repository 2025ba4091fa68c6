"""A value with its interval and n: means, shares and medians; the variance within and between prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError

CONFIDENCE = 0.95
RESAMPLES = 2000
# Below this many values a bootstrap's interval is too narrow.
BOOTSTRAP_FROM = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its interval, and the number of values that it comes from.

    Attributes:
        value: the estimate; NaN without values.
        low, high: the interval's ends; NaN where n is too small for one.
        n: number of independent values (prompts, windows or rounds).
        confidence: of the interval.

    Example:
        >>> found = llmlab.statistics.mean([1, 0, 1, 1])
        >>> found.text
        '0.750 [0.301, 0.954], n=4'
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float = CONFIDENCE

    @property
    def text(self) -> str:
        """The value with its interval and n."""
        if not self.n:
            return "–"
        known = not (math.isnan(self.low) or math.isnan(self.high))
        shown = f" [{number(self.low)}, {number(self.high)}]" if known else ""
        return f"{number(self.value)}{shown}, n={self.n}"

    def __str__(self) -> str:
        return self.text


def number(value: float) -> str:
    """A score with three decimals; three significant digits above 10, one below 0.0005."""
    if math.isnan(value):
        return "–"
    if 0 < abs(value) < 0.0005:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def is_share(values: Sequence[float]) -> bool:
    """Whether the values are all yes (1) or no (0)."""
    return bool(values) and all(value in (0, 1) for value in values)


def mean(values: Sequence[float], *, confidence: float = CONFIDENCE, bounded: bool = False) -> Estimate:
    """The mean of independent values: with Wilson's interval if they are all 0 or 1, else with Student's.

    Args:
        values: one per independent unit; average repeats first (`averages`).
        confidence: of the interval.
        bounded: no value can be below 0 or above 1: the interval is then `bounded_mean`'s.

    Returns:
        The estimate.

    Example:
        >>> llmlab.statistics.mean([2.0, 3.0, 4.0]).text
        '3.000 [0.516, 5.484], n=3'
    """
    found = [float(value) for value in values]
    if not found:
        return NOTHING
    if is_share(found):
        return share(int(sum(found)), len(found), confidence=confidence)
    if bounded:
        return bounded_mean(found, confidence=confidence)
    return student(found, confidence=confidence)


def student(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean with Student's interval, whatever the values are.

    Args:
        values: one per independent unit.
        confidence: of the interval.

    Returns:
        The estimate.
    """
    found = [float(value) for value in values]
    if not found:
        return NOTHING
    _imports.load("scipy.stats")
    import scipy.stats as stats

    n, value = len(found), math.fsum(found) / len(found)
    if n < 2:
        return Estimate(value, math.nan, math.nan, n, confidence)
    error = math.sqrt(math.fsum((one - value) ** 2 for one in found) / (n - 1) / n)
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    return Estimate(value, value - reach, value + reach, n, confidence)


def bounded_mean(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of values that can't be below 0 or above 1, with an interval that can't either.

    The interval is Wilson's with the effective sample size, `p * (1 - p)` divided by the mean's estimated variance, as
    Franco, Little, Louis and Slud (Journal of Survey Statistics and Methodology 7, 2019) recommend it for shares whose
    variance isn't that of independent yes and no; with Student's quantile instead of the normal one, since the variance
    is estimated from n values (Korn and Graubard, Survey Methodology 24, 1998). With many values it is Student's.

    Args:
        values: one per independent unit, each 0 to 1.
        confidence: of the interval.

    Returns:
        The estimate.

    Raises:
        BadInputError: a value is below 0 or above 1.

    Example:
        >>> from llmlab.statistics.estimates import bounded_mean
        >>> bounded_mean([1.0, 1.0, 0.9, 1.0]).text
        '0.975 [0.783, 0.998], n=4'
    """
    found = [float(value) for value in values]
    if not found:
        return NOTHING
    outside = [value for value in found if not -1e-9 <= value <= 1 + 1e-9]
    found = [min(max(value, 0.0), 1.0) for value in found]  # sacrebleu's 100 % is 1 + 4e-16
    if outside:
        raise BadInputError(f"A bounded score must be 0 to 1, got {outside[0]:g}.", "Make the scorer without bounded=.")
    if is_share(found):
        return share(int(sum(found)), len(found), confidence=confidence)
    n, value = len(found), math.fsum(found) / len(found)
    if n < 2:
        return Estimate(value, math.nan, math.nan, n, confidence)
    _imports.load("scipy.stats")
    import scipy.stats as stats

    variance = math.fsum((one - value) ** 2 for one in found) / (n - 1) / n
    # k² / n_eff: the interval is where (p - m)² <= k² m (1 - m) / n_eff.
    ratio = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) ** 2 * variance / (value * (1 - value))
    middle = (value + ratio / 2) / (1 + ratio)
    reach = math.sqrt(ratio * value * (1 - value) + ratio**2 / 4) / (1 + ratio)
    low, high = min(max(middle - reach, 0.0), value), max(min(middle + reach, 1.0), value)
    return Estimate(value, low, high, n, confidence)


def share(yes: int, n: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A share with Wilson's interval.

    Args:
        yes: number of successes.
        n: number of trials.
        confidence: of the interval.

    Returns:
        The estimate.

    Example:
        >>> llmlab.statistics.share(60, 60).text
        '1.000 [0.940, 1.000], n=60'
    """
    if not n:
        return NOTHING
    _imports.load("scipy.stats")
    import scipy.stats as stats

    found = stats.binomtest(yes, n).proportion_ci(confidence, method="wilson")
    return Estimate(yes / n, float(found.low), float(found.high), n, confidence)


def median(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The median, with the interval between two of the sorted values, which assumes nothing about their distribution.

    Args:
        values: one per independent unit.
        confidence: what the interval should have. Fewer than six values can't give 95 %: the interval is then their
            range, and the estimate's `confidence` is what that has.

    Returns:
        The estimate.

    Example:
        >>> found = llmlab.statistics.median([5.0, 4.0, 9.0])
        >>> found.value, found.low, found.high, found.confidence
        (5.0, 4.0, 9.0, 0.75)
    """
    found = sorted(float(value) for value in values)
    n = len(found)
    if not n:
        return NOTHING
    middle = (found[(n - 1) // 2] + found[n // 2]) / 2
    if n == 1:
        return Estimate(middle, math.nan, math.nan, 1, confidence)
    _imports.load("scipy.stats")
    import scipy.stats as stats

    # The largest number of values to leave out at each end.
    cut = max(int(stats.binom.ppf((1 - confidence) / 2, n, 0.5)) - 1, -1)
    reached = 1 - 2 * float(stats.binom.cdf(cut, n, 0.5)) if cut >= 0 else 1 - 2 * 0.5**n
    low = max(cut, 0)
    return Estimate(middle, found[low], found[n - 1 - low], n, reached if cut < 0 else confidence)


def bootstrap(
    values: Sequence[float], statistic: Callable[..., Any], *, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Any statistic of independent values, with a bootstrap interval (BCa).

    Args:
        values: one per independent unit.
        statistic: of an array, with numpy's argument `axis`.
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        The estimate; without an interval for fewer than ten values, or if all are the same.
    """
    _imports.load("numpy", "scipy.stats")
    import numpy as np
    import scipy.stats as stats

    data = np.asarray(values, dtype=float)
    if not len(data):
        return NOTHING
    value = float(statistic(data, axis=-1))
    if len(data) < BOOTSTRAP_FROM or float(np.ptp(data)) == 0:
        return Estimate(value, math.nan, math.nan, len(data), confidence)
    rng = np.random.default_rng(seed)
    found = stats.bootstrap(
        (data,), statistic, n_resamples=RESAMPLES, confidence_level=confidence, rng=rng, vectorized=True
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), len(data), confidence)


def averages(units: Sequence[Hashable], values: Sequence[float]) -> dict[Hashable, float]:
    """The mean of each unit's values: repeats of one prompt aren't independent, and count once.

    Args:
        units: the unit (the prompt) of each value.
        values: the values.

    Returns:
        Unit -> mean, in the order of first occurrence.

    Example:
        >>> llmlab.statistics.averages(["a", "a", "b"], [1, 0, 1])
        {'a': 0.5, 'b': 1.0}
    """
    groups: dict[Hashable, list[float]] = {}
    for unit, value in zip(units, values, strict=True):
        groups.setdefault(unit, []).append(float(value))
    return {unit: math.fsum(group) / len(group) for unit, group in groups.items()}


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the variance of repeated scores comes from.

    Attributes:
        within: variance between repeats (or seeds) of one prompt; NaN without repeats.
        between: variance between prompts, without the part that repeats explain.
        units: number of prompts.
        repeats: mean number of values per prompt.

    Example:
        >>> found = llmlab.statistics.spread(["a", "a", "b", "b"], [1, 0, 1, 1])
        >>> found.within, found.between
        (0.25, 0.0)
    """

    within: float
    between: float
    units: int
    repeats: float


def spread(units: Sequence[Hashable], values: Sequence[float]) -> Spread:
    """The variance within and between units, by a one-way analysis of variance.

    Args:
        units: the unit (the prompt) of each value.
        values: the values.

    Returns:
        The two variances.

    Example:
        >>> llmlab.statistics.spread(["a", "b"], [1, 3]).between
        2.0
    """
    means = averages(units, values)
    count = len(values)
    repeats = count / len(means) if means else 0.0
    free = count - len(means)
    off = math.fsum((float(value) - means[unit]) ** 2 for unit, value in zip(units, values, strict=True))
    within = off / free if free else math.nan
    if len(means) < 2:
        return Spread(within, math.nan, len(means), repeats)
    middle = math.fsum(means.values()) / len(means)
    total = math.fsum((one - middle) ** 2 for one in means.values()) / (len(means) - 1)
    explained = within / repeats if free else 0.0
    return Spread(within, max(total - explained, 0.0), len(means), repeats)
