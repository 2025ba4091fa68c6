"""Context shift: off by default; if on, generation continues past the context without affecting other requests."""

import pytest

from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from tests.engines.driver import submit

ENDLESS = {"ignore_eos": True, "max_tokens": 700, "logprobs": 2}
PROMPT = "Tell me a story about a fox."


@pytest.fixture(scope="module")
def shifting(load):
    engine = load(ctx=256, context_shift=True)
    yield engine
    engine.close()


def test_without_it_an_answer_ends_with_the_context(load):
    engine = load(ctx=256)
    try:
        sent = submit(engine, PROMPT, **ENDLESS)
        choice = sent.done()
        assert choice.finish_reason == "length"
        assert len(sent.request.prompt_ids) + len(choice.token_ids) == 256
        assert engine.describe()["context shift"] == "off"
    finally:
        engine.close()


def test_with_it_an_answer_continues_and_starts_the_same(load, shifting):
    sent = submit(shifting, PROMPT, **ENDLESS)
    choice = sent.done()
    assert (choice.finish_reason, len(choice.token_ids)) == ("length", 700)
    assert shifting.facts.shifts
    plain = load(ctx=1024)
    try:
        full = submit(plain, PROMPT, **ENDLESS).done()
    finally:
        plain.close()
    room = 256 - len(sent.request.prompt_ids)
    assert choice.token_ids[:room] == full.token_ids[:room]

    def apart(start, end):
        pairs = zip(choice.logprobs[start:end], full.logprobs[start:end], strict=True)
        return max(abs(one.top[1][2] - other.top[1][2]) for one, other in pairs)

    # Dropped tokens change the log probabilities of the second choices (the first is certain: the story is over).
    assert apart(0, room) < 0.01
    assert apart(room, room + 100) > 0.1


def test_concurrent_and_later_requests_are_unaffected(shifting):
    short = submit(shifting, "What is the capital of France?", max_tokens=30).done().token_ids
    alone = submit(shifting, PROMPT, **ENDLESS).done().token_ids
    first, second = submit(shifting, PROMPT, **ENDLESS), submit(shifting, PROMPT + " Please.", **ENDLESS)
    first.wait_tokens(300)
    assert submit(shifting, "What is the capital of France?", max_tokens=30).done().token_ids == short
    # The prefix of a shifted sequence must not be reused.
    again = submit(shifting, PROMPT, **ENDLESS)
    assert first.done().token_ids == alone
    assert len(second.done().token_ids) == 700
    assert again.done().token_ids == alone
    assert submit(shifting, PROMPT, **ENDLESS).done().token_ids == alone


def test_through_the_model(lab):
    model = lab.load("nano", engine="llamacpp", ctx=128, extra={"context_shift": True})
    done = model.generate("Hello!", max_tokens=400, ignore_eos=True, temperature=0)
    assert done.usage.completion_tokens == 400
    with pytest.raises(BadInputError, match="context of 128,"):
        model.generate("word " * 200)


def test_options_that_conflict_are_rejected_before_the_load(lab):
    with pytest.raises(UnsupportedError, match="draft"):
        lab.load("nano", engine="llamacpp", draft="ngram", extra={"context_shift": True})
    with pytest.raises(UnknownNameError, match="context_shift"):
        lab.load("nano", engine="vllm", extra={"context_shift": True})
    assert not lab.models
