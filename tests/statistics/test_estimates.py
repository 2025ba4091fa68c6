"""Estimates with intervals, against scipy and by coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from llmlab.errors import BadInputError
from llmlab.statistics import averages, mean, median, share, spread
from llmlab.statistics.estimates import bootstrap


def test_a_share_has_wilsons_interval():
    found = mean([1] * 15 + [0] * 5)
    # The formula, written out.
    z, n, p = stats.norm.ppf(0.975), 20, 0.75
    middle, reach = (p + z * z / 2 / n), z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    ends = [(middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)]
    assert [found.low, found.high] == pytest.approx(ends)
    assert found.n == 20
    assert share(0, 10).low == pytest.approx(0, abs=1e-12)
    assert share(0, 10).high > 0.25


def test_a_mean_has_students_interval():
    values = [1.5, 2.0, 4.5, 3.0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = mean(values)
    assert (found.value, found.low, found.high) == (2.75, pytest.approx(low), pytest.approx(high))


BOUNDED = {
    # draws of scores, and their mean
    "U-shaped": (lambda rng, n: rng.beta(0.5, 0.5, n), 0.5),
    "high": (lambda rng, n: rng.beta(8, 2, n), 0.8),
    "near 1": (lambda rng, n: rng.beta(20, 1, n), 20 / 21),
    "near 0": (lambda rng, n: rng.beta(1, 12, n), 1 / 13),
    "three repeats of yes/no": (lambda rng, n: rng.binomial(3, rng.beta(8, 1, n)) / 3, 8 / 9),
    "mostly 1": (lambda rng, n: np.where(rng.random(n) < 0.95, 1, rng.beta(2, 2, n)), 0.975),
}


@pytest.mark.parametrize("n", [3, 5, 10, 50])
@pytest.mark.parametrize("name", BOUNDED)
def test_the_interval_of_bounded_scores_covers_their_mean_and_stays_within_0_and_1(name, n):
    draw, true = BOUNDED[name]
    rng, inside = np.random.default_rng(n), 0
    for _ in range(1000):
        values = list(draw(rng, n))
        found = mean(values, bounded=True)
        assert 0 <= found.low <= found.value <= found.high <= 1, values
        assert found.value == pytest.approx(np.mean(values))
        inside += found.low <= true <= found.high
    # Student's interval covers in 14 % ("mostly 1", n=3) to 95 %.
    assert inside / 1000 > 0.91


def test_the_interval_of_bounded_scores():
    chrf = [1.0, 1.0, 0.82, 1.0]
    assert mean(chrf).high > 1
    assert mean(chrf, bounded=True).high < 1
    # Its ends are where (p - m)² is k² m (1 - m) / n_eff.
    found = mean(chrf, bounded=True)
    effective = found.value * (1 - found.value) / (np.var(chrf, ddof=1) / 4)
    for end in (found.low, found.high):
        assert (found.value - end) ** 2 == pytest.approx(stats.t.ppf(0.975, 3) ** 2 * end * (1 - end) / effective)
    # With many values it is Student's; of yes and no, Wilson's.
    many = list(np.random.default_rng(0).beta(4, 2, 2000))
    assert mean(many, bounded=True).low == pytest.approx(mean(many).low, abs=1e-4)
    assert mean([1, 0, 1], bounded=True) == share(2, 3)
    assert (mean([0.4] * 3, bounded=True).low, mean([0.4] * 3, bounded=True).high) == pytest.approx((0.4, 0.4))
    assert mean([1 + 4e-16, 1.0], bounded=True) == share(2, 2)
    with pytest.raises(BadInputError, match=r"must be 0 to 1, got 1\.5"):
        mean([1.5, 0.5], bounded=True)


def test_few_values_have_no_interval():
    assert mean([]).n == 0
    assert mean([]).text == "–"
    assert math.isnan(mean([2.5]).low)
    assert mean([2.5]).text == "2.500, n=1"
    assert math.isnan(bootstrap([1.0] * 20, np.mean).low)


@pytest.mark.parametrize("n", [3, 6, 9, 25])
def test_the_interval_of_a_median_covers_it_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    inside, said = 0, 0.0
    for _ in range(1000):
        found = median(list(rng.exponential(size=n)))
        said = found.confidence
        inside += found.low <= math.log(2) <= found.high
    assert inside / 1000 > said - 0.03
    assert said == (0.75 if n == 3 else 0.95)


def test_a_bootstrap_covers_the_mean_of_a_skewed_distribution():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        found = bootstrap(list(rng.exponential(size=50)), np.mean, seed=seed)
        inside += found.low <= 1 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_repeats_count_once():
    units, values = ["a", "a", "a", "b"], [1, 1, 0, 0]
    assert averages(units, values) == {"a": pytest.approx(2 / 3), "b": 0.0}
    assert list(averages(["b", "a"], [1, 2])) == ["b", "a"]


def test_the_variance_within_and_between():
    rng = np.random.default_rng(2)
    units = [i for i in range(400) for _ in range(5)]
    prompts = rng.normal(0, 2, 400)
    values = [float(prompts[i] + rng.normal()) for i in units]
    found = spread(units, values)
    assert found.within == pytest.approx(1, rel=0.1)
    assert found.between == pytest.approx(4, rel=0.2)
    assert (found.units, found.repeats) == (400, 5.0)
    assert math.isnan(spread(["a", "b"], [1, 2]).within)
