"""Where two answers part, and whether the number format explains it."""

import pytest

from llmlab.measure.differences import classify, resolution
from llmlab.types import Choice, Completion, SamplingParams, Timings, TokenLogprob, Usage


def answer(*steps):
    """A completion of (token, log probability, {rival: log probability})."""
    logprobs = tuple(
        TokenLogprob(
            token, f"t{token}", logprob, ((token, f"t{token}", logprob), *((i, f"t{i}", p) for i, p in rivals))
        )
        for token, logprob, *rivals in steps
    )
    choice = Choice("", tuple(one.token_id for one in logprobs), "stop", logprobs)
    return Completion(
        choices=(choice,), usage=Usage(1, len(steps)), timings=Timings(None, 0.0, 0), model="m", engine="e", quant="q",
        params=SamplingParams(),
    )  # fmt: skip


def test_the_resolution_of_each_format():
    assert resolution("bf16") == 0.125
    assert resolution("f16") == 2**-6
    assert resolution("f32") == 2**-19


def test_equal_answers():
    assert classify(answer((1, -0.1)), answer((1, -0.2)), step=0.125).kind == "same"


@pytest.mark.parametrize(
    ("ours", "theirs", "step", "kind"),
    [
        (-0.79, -0.77, 0.125, "rounding"),
        (-0.79, -0.77, 2**-19, "beyond"),  # the same gap is a fault in float32
        (-0.79, -3.0, 0.125, "beyond"),  # close in one run, and far apart in the other
        (-1.6, -1.6, 0.125, "beyond"),
    ],
)
def test_a_gap_is_compared_with_the_format(ours, theirs, step, kind):
    one = answer((5, -0.1), (1, -0.7, (2, ours)))
    other = answer((5, -0.1), (2, -0.7, (1, theirs)))
    found = classify(one, other, step=step)
    assert (found.kind, found.position, found.tokens) == (kind, 1, ("t1", "t2"))
    assert found.gap == pytest.approx(max(-0.7 - ours, -0.7 - theirs))
    assert ("fault" in str(found)) == (kind == "beyond")


def test_a_token_that_was_not_recorded_is_unknown():
    assert classify(answer((1, -0.1)), answer((2, -0.1)), step=0.125).kind == "unknown"
    ended = classify(answer((1, -0.1)), answer((1, -0.1), (3, -0.2)), step=0.125)
    assert (ended.kind, ended.position, ended.tokens) == ("unknown", 1, ("", "t3"))
