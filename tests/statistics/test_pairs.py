"""Paired comparisons: equal variants aren't called different, real differences are, and n is enough."""

import numpy as np
import pytest
from scipy import stats

from llmlab.errors import BadInputError
from llmlab.statistics import LEVEL, holm, paired, sentence
from llmlab.statistics.pairs import _flipped

RUNS, PROMPTS = 500, 40


def equal_variants(kind, rng, variants=2):
    """Scores of variants that are equally good, on prompts of different difficulty."""
    base = rng.normal(size=PROMPTS)
    if kind == "yes/no":
        easy = 1 / (1 + np.exp(-base))
        return [list((rng.random(PROMPTS) < easy).astype(float)) for _ in range(variants)]
    if kind == "repeats":
        easy = 1 / (1 + np.exp(-base))
        return [list(rng.binomial(3, easy) / 3) for _ in range(variants)]
    scores = [base + rng.normal(size=PROMPTS) for _ in range(variants)]
    return [list(np.clip(np.round(3 + one), 1, 5)) if kind == "rating" else list(one) for one in scores]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["yes/no", "number", "rating", "repeats"])
def test_equal_variants_are_called_different_in_at_most_five_of_a_hundred_runs(kind, seed):
    rng = np.random.default_rng(seed)
    called = 0
    for _ in range(RUNS):
        a, b = equal_variants(kind, rng)
        called += paired(a, b, kind="rating" if kind == "rating" else None).different
    assert called <= LEVEL * RUNS
    assert called > 0  # a test that never finds anything would pass, too


@pytest.mark.parametrize("seed", [0, 1])
def test_three_equal_variants_are_called_different_in_at_most_five_of_a_hundred_tables(seed):
    rng = np.random.default_rng(seed)
    called = 0
    for _ in range(RUNS):
        scores = equal_variants("number", rng, 3)
        pairs = [paired(scores[i], scores[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        called += any(one.different for one in holm(pairs))
    assert called <= LEVEL * RUNS


@pytest.mark.parametrize(("kind", "gap"), [("number", 0.5), ("yes/no", 0.25)])
def test_the_n_that_is_named_finds_the_difference(kind, gap):
    rng = np.random.default_rng(3)

    def scores(n):
        if kind == "number":
            return list(rng.normal(size=n) + gap), list(rng.normal(size=n))
        hard = rng.random(n)
        return list((hard < 0.75).astype(float)), list((rng.random(n) < 0.5).astype(float))

    n = paired(*scores(4000)).needed(gap)
    found = sum(paired(*scores(n)).different for _ in range(200)) / 200
    # The normal approximation, and tests that are a little conservative.
    assert 0.65 < found < 0.92


def test_flips_are_scipys():
    rng = np.random.default_rng(5)
    for n in (5, 7, 9):
        values = rng.normal(size=n) + 0.5
        exact = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        assert _flipped(list(values)) == (pytest.approx(exact), True)
        assert paired(list(values), [0.0] * n, kind="rating").p == pytest.approx(stats.wilcoxon(values).pvalue)


def test_a_sampled_p_value_is_an_upper_limit_near_the_exact_one():
    rng = np.random.default_rng(6)
    for shift in (0.1, 0.4, 0.8):
        values = rng.normal(size=14) + shift
        exact = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        p, is_exact = _flipped(list(values))
        assert not is_exact
        assert exact <= p < 1.35 * exact + 0.01
    assert _flipped(list(values)) == _flipped(list(values))  # the same flips each time


def test_many_comparisons_can_still_show_a_large_difference():
    a, b = list(np.linspace(1, 2, 60)), list(np.linspace(0, 0.5, 60))
    assert all(one.different for one in holm([paired(a, b)] * 100))


def test_mcnemar_counts_the_pairs_that_differ():
    found = paired([1] * 9 + [0] * 21, [0] * 8 + [1] + [0] * 20 + [1])
    assert found.p == pytest.approx(stats.binomtest(8, 9).pvalue)
    assert found.effect == pytest.approx(8 / 9 - 0.5)
    assert found.difference.value == pytest.approx(7 / 30)
    # Newcombe's published example (1998, table II: 36, 12, 2, 0).
    a, b = [1] * 36 + [1] * 12 + [0] * 2, [1] * 36 + [0] * 12 + [1] * 2
    ends = paired(a, b).difference
    assert [round(one, 4) for one in (ends.value, ends.low, ends.high)] == [0.2, 0.0569, 0.3404]


def test_no_difference_at_all():
    same = paired([0.5, 0.25, 1.0], [0.5, 0.25, 1.0])
    assert (same.p, same.different, same.effect) == (1.0, False, 0.0)
    assert "same on every prompt" in sentence("a", "b", "score", same)
    assert paired([1, 0], [1, 0]).needed(0.05) > 100


def test_holm_is_holms():
    # p = 0.031, 0.5, 1: the smallest is multiplied by three.
    six, two, none = paired([1] * 6, [0] * 6), paired([1, 1], [0, 0]), paired([1, 0], [1, 0])
    assert [one.adjusted for one in holm([two, six, none])] == [1.0, pytest.approx(6 / 64), 1.0]
    assert holm([]) == []
    assert [one.comparisons for one in holm([six, six])] == [2, 2]


@pytest.mark.parametrize(
    ("a", "b", "kind", "says"),
    [
        ([], [], None, "one length"),
        ([1], [1, 0], None, "1 and 2 scores"),
        ([float("nan")], [1.0], None, "NaN"),
        ([0.5], [1.0], "yes/no", "must be 0 or 1"),
    ],
)
def test_what_can_not_be_compared(a, b, kind, says):
    with pytest.raises(BadInputError, match=says):
        paired(a, b, kind=kind)
    with pytest.raises(BadInputError, match="difference of 0"):
        paired([1, 0], [1, 1]).needed(0)


def test_the_words_say_what_differs_and_what_cannot_be_told():
    clear = holm([paired([1] * 20 + [0] * 5, [0] * 25), paired([1, 0] * 10, [0, 1] * 10)])
    first, second = sentence("F16", "Q2_K", "exact", clear[0]), sentence("F16", "Q8_0", "exact", clear[1], see=0.1)
    assert first.startswith("F16 scores higher than Q2_K on exact: 0.800 against 0.000")
    assert "after Holm's correction for 2 comparisons" in first
    assert "can't tell whether F16 and Q8_0 differ" in second
    assert f"a difference of 0.100 would need about {clear[1].needed(0.1):,} prompts" in second
    shown = clear[1].visible()
    assert f"20 prompts would show a difference of about {shown:.3f}" in sentence("a", "b", "exact", clear[1])
    assert clear[1].needed(shown) == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_the_intervals_of_bounded_scores_stay_within_their_bounds(n):
    rng = np.random.default_rng(n)
    for _ in range(100):
        one, other = rng.beta(8, 0.3, n), rng.beta(0.3, 8, n)
        found = paired(list(one), list(other), bounded=True)
        assert -1 <= found.difference.low <= found.difference.value <= found.difference.high <= 1
        assert found.difference.value == pytest.approx(np.mean(one - other))
        assert 0 <= found.a.low <= found.a.high <= 1
    assert paired([1.0, 0.9], [0.0, 0.3]).difference.high > 1
