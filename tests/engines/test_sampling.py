"""The sampling parameters: each engine against the formula on transformers' logits, and both engines alike."""

import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from llmlab import Lab, zoo
from llmlab.engines.sampling import Adjuster, candidates, chance, word_ids
from llmlab.engines.vllm.load import Loaded
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.types import SamplingParams

PROMPT = "Tell me a story about a dog."
# llamacpp computes nano in f16: a token may win that is this much below the best in float32.
TOLERANCE = 0.05


@pytest.fixture(scope="module")
def precise():
    """Nano in vLLM in float32: in bfloat16 a step's rounding moves logits by up to 0.3."""
    lab = Lab()
    yield lab.load("nano", engine="vllm", extra={"dtype": "float32"})
    lab.close()


@pytest.fixture(params=["llamacpp", "vllm"])
def model(request):
    """Nano in each engine in turn, with as few rounding errors as it has."""
    return request.getfixturevalue("llamacpp" if request.param == "llamacpp" else "precise")


@pytest.fixture(scope="module")
def logits():
    """Nano's logits in float32, by transformers: ids -> array of shape (tokens, vocabulary)."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(zoo.path("nano"), dtype=torch.float32)

    def compute(ids):
        with torch.no_grad():
            return reference(torch.tensor([list(ids)])).logits[0].numpy()

    return compute


def repetition(rate):
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    apply = RepetitionPenaltyLogitsProcessor(rate)
    return lambda row, prompt, output: apply(torch.tensor([[*prompt, *output]]), torch.tensor(row[None]))[0].numpy()


def counted(presence, frequency):
    def apply(row, prompt, output):
        row = row.copy()
        for token, count in Counter(output).items():
            row[token] -= frequency * count + presence
        return row

    return apply


def dry(multiplier, base, allowed, breakers):
    """Every earlier place, its match measured token by token."""

    def apply(row, prompt, output):
        row, text = row.copy(), [*prompt, *output]
        worst = {}
        for end in range(1, len(text)):
            length = 0
            while length < end and text[end - 1 - length] == text[-1 - length] and text[-1 - length] not in breakers:
                length += 1
            if length >= allowed and text[end] not in breakers:
                worst[text[end]] = max(worst.get(text[end], 0), multiplier * base ** (length - allowed))
        for token, penalty in worst.items():
            row[token] -= penalty
        return row

    return apply


def biased(model):
    token = model.tokenize(" the")[0]

    def apply(row, prompt, output):
        row = row.copy()
        row[token] += 9
        return row

    return apply


def never_ending(model, least):
    def apply(row, prompt, output):
        row = row.copy()
        if len(output) < least:
            row[list(model.facts.end_ids)] = -np.inf
        return row

    return apply


GREEDY = {
    "repetition": ({"repetition_penalty": 1.6}, lambda _: repetition(1.6)),
    "presence": ({"presence_penalty": 2.0}, lambda _: counted(2.0, 0.0)),
    "frequency": ({"frequency_penalty": 1.5}, lambda _: counted(0.0, 1.5)),
    "logit_bias": ({"logit_bias": {" the": 9}}, biased),
    "min_tokens": ({"min_tokens": 70}, lambda model: never_ending(model, 70)),
    "dry": (
        {"dry_multiplier": 6.0, "dry_base": 1.5, "dry_allowed_length": 1},
        lambda model: dry(6.0, 1.5, 1, breakers(model)),
    ),
}


def breakers(model):
    pieces = model._engine.grammars.pieces
    return {token for token, piece in enumerate(pieces) if any(text in piece for text in (b"\n", b":", b'"', b"*"))}


def test_tokens_that_contain_a_text(model):
    grammars = model._engine.grammars
    assert grammars.containing(("\n", ":", '"', "*")) == breakers(model)
    assert grammars.containing(()) == frozenset()
    assert grammars.containing((".",)) == {token for token, piece in enumerate(grammars.pieces) if b"." in piece}


@pytest.mark.parametrize("name", GREEDY)
def test_greedy_tokens_are_the_likeliest_by_the_formula(model, logits, name):
    options, formula = GREEDY[name]
    apply = formula(model)
    options = dict(options)
    if "logit_bias" in options:
        options["logit_bias"] = {model.tokenize(text)[0]: bias for text, bias in options["logit_bias"].items()}
    prompt = "Hello!" if name == "min_tokens" else PROMPT
    done = model.generate(prompt, temperature=0, max_tokens=80, **options)
    rows = logits([*done.prompt_token_ids, *done.token_ids])[len(done.prompt_token_ids) - 1 :]
    changed = 0
    for step, token in enumerate(done.token_ids):
        wanted = apply(rows[step], list(done.prompt_token_ids), list(done.token_ids[:step]))
        assert wanted[token] >= wanted.max() - TOLERANCE, (step, done.text)
        changed += rows[step][token] < rows[step].max() - TOLERANCE
    assert changed, "the parameter changed nothing"
    assert done.token_ids != model.generate(prompt, temperature=0, max_tokens=80).token_ids


def typical(row):
    import torch
    from transformers import TypicalLogitsWarper

    return np.exp(torch.log_softmax(TypicalLogitsWarper(0.6)(None, torch.tensor(row[None]))[0], -1).numpy())


def softmax(row):
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def near(row):
    return softmax(np.where(row >= row.max() - 2.5 * row.std(), row, -np.inf))


def excluding(row):
    likely = np.flatnonzero(softmax(row) >= 0.05)
    without = row.copy()
    without[sorted(likely, key=lambda i: row[i])[1:]] = -np.inf
    return 0.5 * softmax(row) + 0.5 * softmax(without)


SAMPLED = {
    "plain": ({}, softmax),
    "typical_p": ({"typical_p": 0.6}, typical),
    "top_n_sigma": ({"top_n_sigma": 2.5}, near),
    "xtc": ({"xtc_probability": 0.5, "xtc_threshold": 0.05}, excluding),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_draws_follow_the_formula(model, logits, name):
    options, formula = SAMPLED[name]
    draws = 500
    done = model.generate(PROMPT, temperature=1.0, top_p=1.0, top_k=0, n=draws, seed=11, max_tokens=1, **options)
    wanted = formula(logits(done.prompt_token_ids)[-1].astype(np.float64))
    found = np.zeros_like(wanted)
    for choice in done.choices:
        found[choice.token_ids[0]] += 1 / draws
    # Of 500 draws from the formula's own distribution, the distance is below this with these seeds.
    assert np.abs(found - wanted).sum() / 2 < 0.17
    assert wanted[found > 0].min() > 0 or found[wanted == 0].sum() < 0.02
    if options:
        plain = softmax(logits(done.prompt_token_ids)[-1])
        assert np.abs(found - wanted).sum() < np.abs(found - plain).sum()


@pytest.mark.parametrize("name", GREEDY)
def test_both_engines_give_the_same_greedy_text(llamacpp, precise, name):
    options = dict(GREEDY[name][0])
    if "logit_bias" in options:
        options["logit_bias"] = {llamacpp.tokenize(" the")[0]: 9}
    one, other = (model.generate("Hello!", temperature=0, max_tokens=80, **options) for model in (llamacpp, precise))
    assert one.token_ids == other.token_ids


def test_penalties_hold_in_a_batch_with_other_requests(model):
    plain = model.generate(PROMPT, temperature=0, max_tokens=40)
    alone = model.generate(PROMPT, temperature=0, max_tokens=40, repetition_penalty=1.6)
    streams = [
        model.stream(PROMPT, temperature=0, max_tokens=40, **options)
        for options in ({}, {"repetition_penalty": 1.6}, {"dry_multiplier": 2.0}, {"typical_p": 0.5}, {})
    ]
    for stream in streams:
        stream.start()
    found = [stream.result().token_ids for stream in streams]
    assert found[0] == found[4] == found[3] == plain.token_ids
    assert found[1] == alone.token_ids


def test_bad_words_are_not_generated(model):
    assert "dog" in model.generate(PROMPT, temperature=0, max_tokens=60).text
    done = model.generate(PROMPT, temperature=0, max_tokens=60, bad_words=["dog", "named"])
    assert "dog" not in done.text
    assert "named" not in done.text


def test_stop_token_ids_end_the_text_and_are_not_in_it(model):
    dot = model.tokenize(".")[0]
    done = model.generate(PROMPT, temperature=0, max_tokens=60, stop_token_ids=[dot])
    assert done.finish_reason == "stop"
    assert done.token_ids[-1] == dot
    assert not done.text.endswith(".")


def test_a_stop_string_counts_after_min_tokens(model):
    free = model.generate(PROMPT, temperature=0, max_tokens=60)
    done = model.generate(PROMPT, temperature=0, max_tokens=60, min_tokens=20, stop=".")
    first = free.text.index(".")
    assert done.finish_reason == "stop"
    assert free.text.startswith(done.text)
    assert len(done.text) > first
    assert len(done.token_ids) > 20


def test_penalties_work_under_a_constraint(model):
    options = {"temperature": 0, "max_tokens": 40, "regex": "(yes|no)( (yes|no)){5}"}
    plain = model.generate("Is 3 odd?", **options)
    done = model.generate("Is 3 odd?", presence_penalty=2.0, frequency_penalty=2.0, min_tokens=3, **options)
    assert {*plain.text.split()} != {*done.text.split()} == {"yes", "no"}
    assert done.finish_reason == "stop"


def test_a_constraint_that_allows_only_the_end_overrides_min_tokens(model):
    done = model.generate("Is 3 odd?", choice=["yes", "no"], min_tokens=30, max_tokens=40, temperature=0)
    assert done.text in ("yes", "no")
    assert done.finish_reason == "stop"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"repetition_penalty": 0}, "repetition_penalty must be more than 0"),
        ({"presence_penalty": 3}, "presence_penalty must be between -2 and 2"),
        ({"logit_bias": {10**9: 1}}, "logit_bias has token id 1000000000"),
        ({"logit_bias": {"the": 1}}, "logit_bias must map token ids"),
        ({"logit_bias": {1: 101}}, "between -100 and 100"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids has token id"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9"),
        ({"min_tokens": 9, "ignore_eos": True}, "ignore_eos"),
        ({"bad_words": ["a"] * 65}, "bad_words has 65 words"),
        ({"bad_words": [""]}, "bad_words must be a non-empty string"),
        ({"bad_words": ["a"], "choice": ["a", "b"]}, "bad_words can't be combined with a constraint"),
        ({"stop_token_ids": [5], "regex": "a{3}"}, "stop_token_ids can't be combined with a constraint"),
        ({"typical_p": 0}, "typical_p must be"),
        ({"xtc_threshold": 2}, "xtc_threshold must be"),
    ],
)
def test_invalid_values_are_refused_before_anything_starts(model, options, what):
    with pytest.raises(BadInputError, match=what):
        model.stream("Hello!", **options)


def test_top_p_of_llmlab_is_that_of_vllm(precise, monkeypatch):
    options = {"temperature": 1.2, "top_p": 0.8, "top_k": 30, "min_p": 0.01, "max_tokens": 24}
    ours = [precise.generate(PROMPT, seed=seed, **options).token_ids for seed in range(20)]
    monkeypatch.setattr(Loaded, "processed", False)
    theirs = [precise.generate(PROMPT, seed=seed, **options).token_ids for seed in range(20)]
    assert ours == theirs
    assert len(set(ours)) > 5


def test_the_order_of_candidates():
    params = SamplingParams(temperature=1.0, top_p=0.8, top_k=3, min_p=0.05, seed=1)
    scaled = np.log(np.array([0.4, 0.3, 0.2, 0.08, 0.02], dtype=np.float32))
    # Of the three that top_k leaves (0.44, 0.33, 0.22), two have a mass of 0.77 before the third.
    assert candidates(scaled, params, 0).tolist() == [0, 1, 2]
    assert candidates(scaled, SamplingParams(top_p=0.7), 0).tolist() == [0, 1]
    masked = np.where([True, False, True, True, True], scaled, -np.inf).astype(np.float32)
    assert 1 not in candidates(masked, params, 0)
    # In vLLM an exception here would fail all requests of the step, not only the one with NaN.
    assert candidates(np.full(5, np.nan, np.float32), params, 0).tolist() == [0, 1, 2, 3, 4]


def plainly(scaled, params):
    """The definition of `candidates` with everything sorted: a set of ids."""
    ids = np.flatnonzero(np.isfinite(scaled))
    logits = scaled[ids].astype(np.float64)
    peak = logits.max()

    def keep(chosen):
        nonlocal ids, logits
        ids, logits = ids[chosen], logits[chosen]

    def probabilities():
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def until(keys, mass):
        order = np.argsort(keys, kind="stable")
        keep(order[: int((np.cumsum(probabilities()[order]) < mass).sum()) + 1])

    if params.top_n_sigma:
        keep(logits >= peak - params.top_n_sigma * logits.std())
    if params.min_p:
        keep(logits >= peak + np.log(params.min_p))
    if params.typical_p:
        surprise = -np.log(np.maximum(probabilities(), 1e-300))
        until(np.abs(surprise - (probabilities() * surprise).sum()), params.typical_p)
    if params.top_k:
        keep(logits >= np.sort(logits)[-min(params.top_k, len(logits))])
    if params.top_p:
        until(-logits, params.top_p)
    return set(ids.tolist())


NARROWING = {
    "top_n_sigma": (0.5, 1.5), "min_p": (0.01, 0.3), "typical_p": (0.2, 0.95), "top_k": (1, 50),
    "top_p": (0.1, 0.9, 0.999),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "flat", "equal", "ties", "peaked", "spread", "masked", "one left"])
@pytest.mark.parametrize("vocabulary", [1, 5, 4096, 128_256])
def test_candidates_are_those_of_the_definition(vocabulary, kind):
    draws = np.random.default_rng(vocabulary)
    scaled = draws.normal(0, 2, vocabulary).astype(np.float32)
    if kind == "peaked":
        scaled[-1] += 30
    elif kind == "masked":
        scaled[:-1][draws.random(vocabulary - 1) < 0.7] = -np.inf
    elif kind == "one left":
        scaled[:-1] = -np.inf
    else:
        changed = {"flat": 0.05 * scaled, "equal": 0 * scaled, "ties": scaled.round(), "spread": 50 * scaled}
        scaled = changed.get(kind, scaled)
    sets = [{name: value} for name, values in NARROWING.items() for value in values]
    for _ in range(6):
        some = [name for name in NARROWING if draws.random() < 0.5]
        sets.append({name: draws.choice(NARROWING[name]).item() for name in some})
    for options in sets:
        params = SamplingParams(**options)
        assert set(candidates(scaled, params, 0).tolist()) == plainly(scaled, params), options


@pytest.mark.parametrize("options", [{"typical_p": 0.9}, {"top_n_sigma": 1.0}, {"top_n_sigma": 1.0, "top_p": 0.9}])
def test_candidates_of_a_large_vocabulary_take_little_memory(options):
    scaled = np.random.default_rng(0).normal(0, 3, 262_144).astype(np.float32)
    tracemalloc.start()
    candidates(scaled, SamplingParams(**options), 0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * scaled.nbytes


def test_xtc_keeps_the_least_likely_of_the_likely_tokens_and_is_repeatable():
    scaled = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    always = SamplingParams(xtc_probability=1.0, xtc_threshold=0.1, seed=3)
    assert candidates(scaled, always, 0).tolist() == [2, 3]
    alone = SamplingParams(xtc_probability=1.0, xtc_threshold=0.4, seed=3)
    assert candidates(scaled, alone, 0).tolist() == [0, 1, 2, 3]
    rolls = [chance(3, step) for step in range(2000)]
    assert rolls == [chance(3, step) for step in range(2000)]
    assert 0.47 < np.mean(rolls) < 0.53


def test_bad_words_have_a_form_with_and_one_without_a_leading_space():
    known = {"dog": [1], " dog": [2], "x": [5], " x": [9, 5]}
    assert word_ids(["dog", "x"], known.__getitem__) == ((1,), (2,), (5,))


def test_the_penalties_count_tokens_of_a_drafted_step_once():
    params = SamplingParams(repetition_penalty=2.0, frequency_penalty=1.0, presence_penalty=0.5)
    adjuster = Adjuster(params, 2, ())
    row = np.array([1.0, -1.0, 4.0, 2.0], dtype=np.float32)
    assert adjuster.adjust(row.copy(), [0, 1]).tolist() == [0.5, -2.0, 4.0, 2.0]
    assert adjuster.adjust(row.copy(), [0, 1, 2, 2]).tolist() == [0.5, -2.0, -0.5, 2.0]
    assert adjuster.adjust(row.copy(), [0, 1, 2, 2, 0]).tolist() == [-1.0, -2.0, -0.5, 2.0]


def test_vllm_with_a_draft_refuses_what_it_lacks_and_applies_the_rest(lab, precise, monkeypatch):
    drafted = lab.load("nano", engine="vllm", draft="ngram", extra={"dtype": "float32"})
    for options in ({"min_p": 0.1}, {"logit_bias": {5: 1}}, {"typical_p": 0.5}, {"dry_multiplier": 1.0}):
        name = next(iter(options))
        with pytest.raises(UnsupportedError, match=f"vLLM doesn't support {name} with a draft"):
            drafted.stream("Hello!", **options)
    # A default of the model that can't be applied is left out.
    defaults = SamplingParams(temperature=0.5, min_p=0.1, typical_p=0.5)
    monkeypatch.setattr(drafted, "_facts", replace(drafted.facts, defaults=defaults))
    params = drafted.generate("Hello!", max_tokens=2).params
    assert (params.temperature, params.min_p, params.typical_p) == (0.5, 0.0, 1.0)
    for options in ({"repetition_penalty": 1.6}, {"frequency_penalty": 1.5, "presence_penalty": 1.0}):
        wanted = precise.generate(PROMPT, temperature=0, max_tokens=60, **options)
        assert drafted.generate(PROMPT, temperature=0, max_tokens=60, **options).token_ids == wanted.token_ids
    wanted = precise.generate(PROMPT, temperature=0, max_tokens=60, bad_words=["dog"], min_tokens=10)
    found = drafted.generate(PROMPT, temperature=0, max_tokens=60, bad_words=["dog"], min_tokens=10)
    assert found.token_ids == wanted.token_ids


def test_llamacpp_with_a_draft_gives_the_same_text(lab, llamacpp):
    drafted = lab.load("nano", engine="llamacpp", draft="ngram")
    for options in ({"repetition_penalty": 1.6}, {"dry_multiplier": 2.0}, {"bad_words": ["dog"], "min_tokens": 10}):
        wanted = llamacpp.generate(PROMPT, temperature=0, max_tokens=60, **options)
        assert drafted.generate(PROMPT, temperature=0, max_tokens=60, **options).text == wanted.text
    for options in ({"typical_p": 0.7}, {"xtc_probability": 0.5}):
        wanted = llamacpp.generate(PROMPT, seed=4, max_tokens=60, **options)
        assert drafted.generate(PROMPT, seed=4, max_tokens=60, **options).text == wanted.text
