"""Sampling params and continuing on SmolLM2: the same on both engines, and what they are for."""

import pytest

# Holds the fixtures smol, smol_llamacpp and smol_vllm.
pytest.importorskip("tests.real.conftest")

PROMPT = "List five fruits."


OPTIONS = [
    {"repetition_penalty": 1.3},
    {"presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"dry_multiplier": 2.0},
    {"min_tokens": 30, "bad_words": ["apple", "Apple"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_both_engines_take_the_same_tokens_until_a_near_tie(smol_llamacpp, smol_vllm, options):
    one, other = (
        model.generate(PROMPT, temperature=0, max_tokens=32, logprobs=20, **options)
        for model in (smol_llamacpp, smol_vllm)
    )
    for mine, its in zip(one.logprobs, other.logprobs, strict=False):
        if mine.token_id != its.token_id:
            likely = {token: value for token, _, value in mine.top}
            # The penalties lower what is likely by itself: the other engine's choice is among the likely ones here too.
            assert its.token_id in likely, (one.text, other.text)
            return
    assert one.token_ids == other.token_ids


def test_penalties_end_a_repetition(smol):
    text = "one two three one two three one two three one two"
    plain = smol.generate(text, raw=True, temperature=0, max_tokens=24)
    assert plain.text.startswith(" three one two three")
    for options in ({"repetition_penalty": 1.8}, {"dry_multiplier": 8.0}, {"frequency_penalty": 2.0}):
        done = smol.generate(text, raw=True, temperature=0, max_tokens=24, **options)
        assert done.text.count("three") < plain.text.count("three"), options


def test_a_cut_answer_and_a_begun_one_continue(smol):
    full = smol.generate(PROMPT, temperature=0, max_tokens=40)
    part = smol.generate(PROMPT, temperature=0, max_tokens=15)
    assert part.continue_(max_tokens=25).text == full.text
    turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "Here are five fruits:\n\n1."}]
    done = smol.generate(turns, temperature=0, max_tokens=8)
    assert done.prompt.endswith("<|im_start|>assistant\nHere are five fruits:\n\n1.")
    assert len(done.text) > len(turns[1]["content"])
