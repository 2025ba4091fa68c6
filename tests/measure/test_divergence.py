"""Perplexity and KL divergence against independent ways to compute them."""

import math

import numpy as np
import pytest

from llmlab.errors import BadInputError, UnknownNameError
from llmlab.measure import divergence

TEXT = "The old bear lived in a small house by the lake. Every morning he walked to the water to fish. " * 12


def test_windows_are_those_of_llama_perplexity():
    cut = divergence.cut(range(1000, 2500), size=512, most=8, bos=7)
    assert [len(window) for window in cut.ids] == [512, 512]
    assert [window[0] for window in cut.ids] == [7, 7]
    assert cut.ids[1][1] == 1513
    assert (cut.first, cut.scored) == (256, 2 * 255)


def test_a_short_text_makes_two_windows_and_a_shorter_one_is_refused():
    assert divergence.cut(range(100), size=512, most=8).size == 50
    with pytest.raises(BadInputError, match="two windows"):
        divergence.cut(range(15), size=512, most=8)


def test_kl_by_hand():
    p = np.log(np.array([[0.5, 0.25, 0.25]], dtype=np.float32))
    q = np.log(np.array([[0.25, 0.25, 0.5]], dtype=np.float32))
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert divergence.kl(p, q)[0] == pytest.approx(expected, rel=1e-5)
    assert divergence.kl(p, p)[0] == 0


def reference_perplexity(model, ids, size):
    """llama-perplexity's loop in a few lines, through llama-cpp-python's own high-level class."""
    import llama_cpp

    llm = llama_cpp.Llama(str(model.path), n_ctx=size, n_batch=size, logits_all=True, verbose=False, n_threads=1)
    total, count = 0.0, 0
    for start in range(0, len(ids) - size + 1, size):
        window = ids[start : start + size]
        llm.reset()
        llm.eval(window)
        for at in range(size // 2, size - 1):
            logits = np.asarray(llm.scores[at], dtype=np.float64)
            top = logits.max()
            total += top + math.log(np.exp(logits - top).sum()) - logits[window[at + 1]]
            count += 1
    llm.close()
    return math.exp(total / count)


def test_perplexity_agrees_with_a_reference_within_one_per_cent(llamacpp):
    ids = llamacpp.tokenize(TEXT)
    cut = divergence.cut(ids, size=128, most=99)
    tally = divergence.Tally()
    for window in cut.ids:
        tally.add(window, cut.first, llamacpp.score(window, first=cut.first))
    assert tally.result().perplexity == pytest.approx(reference_perplexity(llamacpp, ids, 128), rel=0.01)


def test_scores_are_distributions_and_the_engines_agree(model, llamacpp):
    ids = llamacpp.tokenize(TEXT)[:200]
    rows = model.score(ids, first=50)
    assert rows.shape == (149, 2048)
    assert np.allclose(np.exp(rows).sum(axis=1), 1, atol=1e-4)
    assert float(divergence.kl(llamacpp.score(ids, first=50), rows).mean()) < 0.02
    # The model answers as ever afterwards, beside requests under way too.
    stream = model.stream("Tell me a story about a bear.", temperature=0, max_tokens=64)
    stream.start()
    again = model.score(ids, first=50)
    assert np.allclose(again, rows, atol=0.15)
    assert stream.result().text


@pytest.mark.parametrize("spec", ["pirate", "pirate:0.5"])
def test_scores_under_an_adapter_are_those_that_its_answer_was_sampled_from(model, spec):
    model.add_adapter("pirate", "pirate")
    try:
        done = model.generate("Who are you?", adapter=spec, temperature=0, max_tokens=24, logprobs=0)
        prompt = list(done.prompt_token_ids)
        ids, first = [*prompt, *done.token_ids], len(prompt) - 1
        place = np.arange(len(done.token_ids))
        rows = model.score(ids, first=first, adapter=spec)
        reported = [one.logprob for one in done.logprobs]
        assert np.allclose(rows[place, done.token_ids], reported, atol=0.15)
        base = model.score(ids, first=first)
        assert rows[place, done.token_ids].sum() > base[place, done.token_ids].sum() + 5
        model.use_adapter(spec)
        assert np.allclose(model.score(ids, first=first), rows, atol=0.05)
        assert np.allclose(model.score(ids, first=first, adapter=None), base, atol=0.05)
        with pytest.raises(UnknownNameError, match="terse"):
            model.score(ids, adapter="terse")
    finally:
        model.remove_adapter("pirate")


def test_many_texts_are_scored_as_each_alone(model):
    choices = [" Paris, I think.", " Rome", " the town of Berlin", " eight"]
    questions = ["What is the capital of France? It is one of these:", "How many legs does a spider have? Choose one:"]
    texts, first = [[5, 6]], [0]
    for question in questions * 3:
        begun = model.tokenize(question)
        texts += [[*begun, *model.tokenize(choice)] for choice in choices]
        first += [len(begun) - 1] * len(choices)
    # Beginnings that are scored, longer texts than a step, and the same one twice.
    texts += [texts[1], model.tokenize(TEXT * 3)[:700], model.tokenize(TEXT * 3)[:650], texts[2], texts[2]]
    first += [0, 0, 640, 3, 3]
    model.add_adapter("pirate", "pirate")
    try:
        for adapter in (None, "pirate"):
            stream = model.stream("Tell me a story about a bear.", temperature=0, max_tokens=24)
            stream.start()
            many = list(model.score_many(texts, first=first, adapter=adapter))
            assert stream.result().text
            for ids, start, rows in zip(texts, first, many, strict=True):
                alone = model.score(ids, first=start, adapter=adapter)
                assert rows.shape == alone.shape
                place, own = np.arange(len(alone)), ids[start + 1 :]
                # 16-bit activations or KV cache: what a step holds besides changes the rounding.
                assert np.allclose(rows[place, own], alone[place, own], atol=0.15)
                assert float(divergence.kl(alone, rows).mean()) < 1e-3
    finally:
        model.remove_adapter("pirate")
    assert list(model.score_many([])) == []
    with pytest.raises(BadInputError, match="got 1 tokens"):
        model.score_many([[1, 2], [1]])


def test_what_texts_have_in_common_is_computed_once(llamacpp, monkeypatch):
    from llmlab.engines.llamacpp.context import NativeContext

    computed, decode = [], NativeContext.decode

    def counted(self, count):
        computed.append(count)
        return decode(self, count)

    begun = llamacpp.tokenize(TEXT)[:100]
    texts = [[*begun, *llamacpp.tokenize(one)] for one in (" Paris", " Rome", " Berlin")]
    monkeypatch.setattr(NativeContext, "decode", counted)
    list(llamacpp.score_many(texts, first=[len(begun) - 1] * 3))
    assert sum(computed) < 100 + 3 * 10
    computed.clear()
    # With different parts scored, the prefix ends where the first of them starts.
    list(llamacpp.score_many(texts, first=[50, len(begun) - 1, len(begun) - 1]))
    assert 200 < sum(computed) < 50 + 3 * 60


def test_scoring_takes_no_nonsense(llamacpp):
    for ids, first in (([1], 0), ([1, 2, 3], 2), ([1, 2, 3], -1), ([1] * 4000, 0)):
        with pytest.raises(BadInputError, match="Scoring needs"):
            llamacpp.score(ids, first=first)


def test_only_the_likeliest_tokens_come_from_a_child_process(vllm):
    """What a core in a child process would give: exact where it matters, the rest spread evenly."""
    from llmlab.engines.vllm import scoring

    ids = vllm.tokenize(TEXT)[:64]
    loop, found = vllm._engine._loop, []
    loop.call(lambda _: found.extend(scoring.score(loop.loaded.llm, [(ids, 0)], 2048, in_process=False, top=100)[0]))
    whole = vllm.score(ids)
    assert np.allclose(np.exp(found[0]).sum(axis=1), 1, atol=1e-3)
    likely = whole.argmax(axis=1)
    assert np.allclose(found[0][np.arange(63), likely], whole[np.arange(63), likely], atol=0.15)
