"""The meter of speculative decoding: when a step must run without the draft, and the speed-up."""

import random

import pytest

from llmlab.engines.speculation import SpeculationMeter


def run(meter, steps, draft, *, plain_s=1.0, drafted_s=2.0, tokens=4.0):
    """Run steps: `draft(n)` is whether something is drafted in step n. Returns how many were forced to be plain."""
    forced = 0
    for number in range(steps):
        plain = meter.plain_due()
        forced += plain
        single = plain or not draft(number)
        meter.step(
            plain_s if single else drafted_s, 1.0 if single else tokens, drafted=not plain, single=single and not plain
        )
    return forced


def test_no_step_is_made_plain_where_enough_are_by_themselves():
    meter = SpeculationMeter("ngram")
    assert run(meter, 500, lambda n: n % 8 < 4) == 0
    # Half of the steps give 4 tokens in the time of 2, the others 1 in 1: 5 tokens in 3 seconds.
    assert meter.speedup == pytest.approx(5 / 3, rel=0.05)


def test_a_draft_in_every_step_is_interrupted_seldom():
    meter = SpeculationMeter("small")
    assert run(meter, 64, lambda _: True) == 4 * 2  # of periods of 16 steps, in every second one
    assert run(meter, 640, lambda _: True) == 4 * 5  # of periods of 64 steps
    assert meter.speedup == pytest.approx(2.0)


def test_a_period_without_plain_steps_counts():
    meter = SpeculationMeter("ngram")
    run(meter, 64, lambda n: n % 8 < 4)
    run(meter, 64, lambda _: True)  # no step is forced to be plain: the periods before had enough
    run(meter, 64, lambda n: n % 8 < 4)
    assert meter.speedup > 5 / 3 * 1.05


def test_nothing_drafted_is_no_speedup():
    meter = SpeculationMeter("ngram")
    assert run(meter, 200, lambda _: False) == 0
    assert meter.speedup == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_speedup_is_that_of_the_whole_run(seed):
    rng = random.Random(seed)
    share, meter = rng.random(), SpeculationMeter("ngram")
    run(meter, 2000, lambda _: rng.random() < share, plain_s=1.0, drafted_s=1.5, tokens=3.0)
    assert meter.speedup == pytest.approx((1 + 2 * share) / (1 + 0.5 * share), rel=0.1)
