"""The bench: figures that hang together, over several models and concurrencies."""

import pytest

from llmlab.errors import BadInputError
from llmlab.measure import bench, speed


def test_a_table_a_plot_and_figures_that_hang_together(llamacpp, vllm):
    seen = []
    result = bench(
        llamacpp,
        vllm,
        concurrency=(1, 4),
        prompt_tokens=32,
        max_tokens=8,
        rounds=2,
        progress=lambda what, share: seen.append((what, share)),
    )
    frame = result.frame
    assert list(frame["concurrency"]) == [1, 4, 1, 4]
    assert set(frame["engine"]) == {"llamacpp", "vllm"}
    assert (frame[["tokens_per_s", "ttft_p50_ms", "tpot_p50_ms", "memory_mb"]] > 0).all(axis=None)
    assert (frame["ttft_p95_ms"] >= frame["ttft_p50_ms"]).all()
    assert [len(p.ttft_ms) for p in result.points] == [2, 8, 2, 8]
    assert "tokens/s" in repr(result)
    assert (frame["tokens_per_s_low"] <= frame["tokens_per_s"]).all()
    assert (frame["tokens_per_s_high"] >= frame["tokens_per_s"]).all()
    assert "50 % interval, the range of the rounds" in result.note
    assert "<table" in result._repr_html_()
    drawn = result.plot().to_dict()
    assert [part["encoding"]["y"]["field"] for part in drawn["hconcat"]] == [
        "tokens_per_s",
        "ttft_p50_ms",
        "tpot_p50_ms",
    ]
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert seen[-1] == ("done", 1.0)


def test_more_at_once_than_the_engine_decodes_is_said(llamacpp):
    result = bench(llamacpp, concurrency=(llamacpp.plan.max_concurrency + 1,), prompt_tokens=8, max_tokens=2, rounds=1)
    assert "further requests were queued" in result.note


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rounds": 0}, "rounds"),
        ({"concurrency": ()}, "concurrency"),
        ({"prompt_tokens": 5000}, "context"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_numbers_that_can_not_be_are_refused(llamacpp, options, says):
    with pytest.raises(BadInputError, match=says):
        bench(llamacpp, **options)


def test_nothing_to_measure():
    with pytest.raises(BadInputError, match="no model"):
        bench()


def test_a_second_bench_reuses_nothing_of_the_first(llamacpp, monkeypatch):
    """Its prompts were those of the first, whose KV cache was still there."""
    reused = []
    run = speed._run

    def noted(model, prompts, max_tokens):
        taken = run(model, prompts, max_tokens)
        reused.extend(answer.usage.cached_tokens for answer in taken.answers)
        return taken

    monkeypatch.setattr(speed, "_run", noted)
    for _ in range(2):
        bench(llamacpp, concurrency=[1], prompt_tokens=64, max_tokens=4, rounds=1)
    assert len(reused) == 4
    assert max(reused) < 8
