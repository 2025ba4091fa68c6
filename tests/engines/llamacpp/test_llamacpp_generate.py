"""The output of single and batched requests."""

import math
import random

import numpy as np
import pytest

from llmlab.engines.llamacpp.sampler import gumbel, pick
from tests.engines.driver import submit

THINGS = ("a cat", "the moon", "Paris", "red", "rain", "a king", "bread", "fire", "music", "snow")
PROMPTS = [f"Tell me about {thing}." for thing in THINGS]
PROMPTS += [f"What is {a} plus {a + 3}?" for a in range(10)]


def test_greedy_is_repeatable(engine):
    first = submit(engine, PROMPTS[0]).done()
    assert first.token_ids
    assert submit(engine, PROMPTS[0], seed=7).done() == submit(engine, PROMPTS[0], seed=7).done()
    assert submit(engine, PROMPTS[0], seed=7).done().token_ids == first.token_ids


def test_alone_as_inside_a_batch(engine):
    alone = [submit(engine, prompt).done() for prompt in PROMPTS]
    together = [one.done() for one in [submit(engine, prompt) for prompt in PROMPTS]]
    same = sum(a.token_ids == b.token_ids for a, b in zip(alone, together, strict=True))
    # Kernels for one row and for several sum in a different order, which may flip a near tie.
    assert same >= len(PROMPTS) - 1


def test_seeds(engine):
    options = {"temperature": 1.0, "ignore_eos": True}
    seeds = [*range(39), 2**32 - 1]
    alone = [submit(engine, PROMPTS[0], seed=seed, **options).done().token_ids for seed in seeds]
    batch = [one.done().token_ids for one in [submit(engine, PROMPTS[0], seed=seed, **options) for seed in seeds]]
    # Batched logits differ in the last digits, which may flip a draw that nearly ties.
    assert sum(a == b for a, b in zip(alone, batch, strict=True)) >= len(seeds) - 3
    assert len(set(alone)) > len(seeds) // 2
    again = [submit(engine, PROMPTS[0], seed=seed, **options).done().token_ids for seed in seeds[-3:]]
    assert again == alone[-3:]


@pytest.mark.parametrize("narrow", [{}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2}])
def test_draws_follow_the_distribution(engine, narrow):
    """Over many seeds, first tokens occur as often as the filtered softmax predicts."""
    draws = 400
    top = submit(engine, PROMPTS[5], logprobs=100, max_tokens=1).done().logprobs[0].top
    weights = {token: math.exp(logprob) for token, _, logprob in top}
    ranked = sorted(weights.items(), key=lambda item: -item[1])
    if "top_k" in narrow:
        ranked = ranked[:3]
    elif "min_p" in narrow:
        ranked = [(token, w) for token, w in ranked if w >= narrow["min_p"] * ranked[0][1]]
    elif "top_p" in narrow:
        below = [sum(w for _, w in ranked[:i]) for i in range(len(ranked))]
        ranked = [item for item, mass in zip(ranked, below, strict=True) if mass < narrow["top_p"]]
    # Without a filter, the mass beyond the 100 likeliest tokens counts too.
    kept = sum(w for _, w in ranked) if narrow else 1.0
    sent = [submit(engine, PROMPTS[5], temperature=1.0, seed=s, max_tokens=1, **narrow) for s in range(draws)]
    drawn = [one.done().token_ids[0] for one in sent]
    if narrow:
        assert set(drawn) <= {token for token, _ in ranked}
    for token, weight in ranked[:5]:
        expected = weight / kept
        spread = 5 * math.sqrt(expected * (1 - expected) / draws)  # five standard deviations
        assert abs(drawn.count(token) / draws - expected) <= spread + 1 / draws


def test_noise_is_gumbel():
    ids = np.arange(50_000)
    noise = gumbel(ids, seed=2**32 - 1, step=3)
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.03)
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.08)
    other = gumbel(ids, seed=2**32 - 1, step=4)
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.03
    assert (gumbel(ids[10:20], seed=2**32 - 1, step=3) == noise[10:20]).all()


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.5, 3.0, 6.0, 50.0])
@pytest.mark.parametrize("allowed", [1.0, 0.3, 0.01, 0.0])
def test_a_large_vocabulary_is_drawn_from_alike(spread, allowed):
    draws = np.random.default_rng(0)
    logits = (draws.standard_normal(60_000) * spread).astype(np.float32)
    logits[1:][draws.random(59_999) >= allowed] = -np.inf
    ids = np.random.default_rng(1).permutation(60_000).astype(np.int32)
    for step in range(30):
        assert pick(ids, logits, 7, step) == ids[np.argmax(logits + gumbel(ids, 7, step))]


def test_filters_leave_only_the_likeliest(engine):
    greedy = submit(engine, PROMPTS[1]).done().token_ids
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert submit(engine, PROMPTS[1], temperature=2.0, seed=5, **narrow).done().token_ids == greedy


def test_the_text_is_that_of_the_tokens(engine):
    for prompt in PROMPTS[:5]:
        choice = submit(engine, prompt, temperature=3.0, ignore_eos=True, max_tokens=60).done()
        assert choice.text == engine.detokenize(list(choice.token_ids))


def test_chunks_add_up(engine):
    sent = submit(engine, PROMPTS[2], temperature=2.0, ignore_eos=True)
    choice = sent.done()
    chunks = sent.buffer.read(0)
    assert "".join(chunk.text for chunk in chunks) == choice.text
    assert tuple(token for chunk in chunks for token in chunk.token_ids) == choice.token_ids
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]


@pytest.mark.parametrize(
    "text", ["plain", "naïve café — “x”", "🙂👩‍👩‍👧‍👦 ok", "日本語 русский", "\n\t  a\u0301", "<|end|>"]
)
def test_unicode_round_trip(engine, text):
    assert engine.detokenize(engine.tokenize(text, special=False)) == text


def test_special_text_becomes_the_special_token(engine):
    assert engine.tokenize("<|end|>") == [5]
    assert len(engine.tokenize("<|end|>", special=False)) > 1
    assert engine.detokenize(engine.tokenize("<|user|>hi<|end|>")) == "hi"


def test_ignore_eos_continues(engine):
    # An output that ends by itself, then the same one forced past its end.
    ended = next(c for c in (submit(engine, p, max_tokens=200).done() for p in PROMPTS) if c.finish_reason == "stop")
    assert ended.token_ids[-1] in engine.facts.end_ids
    prompt = next(p for p in PROMPTS if submit(engine, p, max_tokens=200).done().token_ids == ended.token_ids)
    count = len(ended.token_ids) + 20
    forced = submit(engine, prompt, max_tokens=count, ignore_eos=True).done()
    assert forced.finish_reason == "length"
    assert len(forced.token_ids) == count
    assert forced.token_ids[: len(ended.token_ids)] == ended.token_ids
    assert "<|" not in ended.text


def test_stop_strings_across_tokens(engine):
    options = {"ignore_eos": True, "max_tokens": 40}
    free = submit(engine, PROMPTS[0], **options).done()
    rng = random.Random(0)
    tried = 0
    while tried < 6:
        start = rng.randrange(len(free.text) - 8)
        stop = free.text[start : start + rng.randrange(3, 8)]
        if "�" in stop:
            continue
        tried += 1
        choice = submit(engine, PROMPTS[0], stop=(stop, "not in the text"), **options).done()
        assert choice.finish_reason == "stop"
        assert choice.text == free.text[: free.text.find(stop)]
        assert choice.token_ids == free.token_ids[: len(choice.token_ids)]
    assert submit(engine, PROMPTS[0], stop=("not in the text",), **options).done().text == free.text


def test_length_by_max_tokens(engine):
    choice = submit(engine, PROMPTS[0], max_tokens=5, ignore_eos=True).done()
    assert (choice.finish_reason, len(choice.token_ids)) == ("length", 5)


def test_length_by_context(engine):
    room = 7
    ids = [100 + i % 500 for i in range(engine.facts.context_length - room)]
    choice = submit(engine, ids, max_tokens=100, ignore_eos=True).done()
    assert (choice.finish_reason, len(choice.token_ids)) == ("length", room)


def test_logprobs(engine):
    choice = submit(engine, PROMPTS[3], logprobs=5).done()
    assert len(choice.logprobs) == len(choice.token_ids)
    for token, entry in zip(choice.token_ids, choice.logprobs, strict=True):
        values = [logprob for _, _, logprob in entry.top]
        assert entry.token_id == token
        assert entry.top[0][0] == token  # greedy takes the likeliest
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-9
    full = submit(engine, PROMPTS[3], logprobs=100, max_tokens=1).done().logprobs[0]
    assert len(full.top) == 100
    assert 0.5 < sum(math.exp(value) for _, _, value in full.top) <= 1 + 1e-9
    assert submit(engine, PROMPTS[3], logprobs=0).done().logprobs[0].top == ()


def test_logprobs_are_those_before_temperature(engine):
    cold = submit(engine, PROMPTS[3], logprobs=3, max_tokens=1).done().logprobs[0]
    hot = submit(engine, PROMPTS[3], logprobs=3, max_tokens=1, temperature=2.0, top_k=2).done().logprobs[0]
    assert [i for i, _, _ in hot.top] == [i for i, _, _ in cold.top]
    assert [v for _, _, v in hot.top] == pytest.approx([v for _, _, v in cold.top], abs=1e-3)


def test_facts(engine):
    facts = engine.facts
    assert facts.architecture == "llama"
    assert (facts.context_length, facts.vocab_size) == (1024, 2048)
    assert facts.trained_context == 2048
    assert "<|assistant|>" in facts.chat_template
    assert facts.special_tokens["eos_token"] == "<|end|>"
    assert 5 in facts.end_ids
    assert not facts.add_bos
    assert engine.describe()["threads"].startswith("1 ")
    memory = engine.memory()
    assert memory.weights > 8e6
    assert memory.kv_cache == 4 * 1024 * 2 * 6 * 2 * 64 * 2  # tokens x (K, V) x layers x heads x head size x F16
