"""Context shift: only when it was asked for; then an answer goes on past the context, and harms nobody else's."""

import pytest

from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from tests.engines.driver import ask

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
        asked = ask(engine, PROMPT, **ENDLESS)
        choice = asked.done()
        assert choice.finish_reason == "length"
        assert len(asked.request.prompt_ids) + len(choice.token_ids) == 256
        assert engine.describe()["context shift"] == "off"
    finally:
        engine.close()


def test_with_it_an_answer_goes_on_and_begins_as_without(load, shifting):
    asked = ask(shifting, PROMPT, **ENDLESS)
    choice = asked.done()
    assert (choice.finish_reason, len(choice.token_ids)) == ("length", 700)
    assert shifting.facts.shifts
    plain = load(ctx=1024)
    try:
        whole = ask(plain, PROMPT, **ENDLESS).done()
    finally:
        plain.close()
    room = 256 - len(asked.request.prompt_ids)
    assert choice.token_ids[:room] == whole.token_ids[:room]

    def apart(start, end):
        pairs = zip(choice.logprobs[start:end], whole.logprobs[start:end], strict=True)
        return max(abs(one.top[1][2] - other.top[1][2]) for one, other in pairs)

    # What was forgotten is gone, which the model's second choices tell (its first is clear: the story is over).
    assert apart(0, room) < 0.01
    assert apart(room, room + 100) > 0.1


def test_neighbours_and_those_that_come_after_are_not_harmed(shifting):
    short = ask(shifting, "What is the capital of France?", max_tokens=30).done().token_ids
    alone = ask(shifting, PROMPT, **ENDLESS).done().token_ids
    first, second = ask(shifting, PROMPT, **ENDLESS), ask(shifting, PROMPT + " Please.", **ENDLESS)
    first.wait_tokens(300)
    assert ask(shifting, "What is the capital of France?", max_tokens=30).done().token_ids == short
    # The beginning of a sequence that has forgotten is nobody's to copy.
    again = ask(shifting, PROMPT, **ENDLESS)
    assert first.done().token_ids == alone
    assert len(second.done().token_ids) == 700
    assert again.done().token_ids == alone
    assert ask(shifting, PROMPT, **ENDLESS).done().token_ids == alone


def test_through_the_model(lab):
    model = lab.load("nano", engine="llamacpp", ctx=128, extra={"context_shift": True})
    done = model.generate("Hello!", max_tokens=400, ignore_eos=True, temperature=0)
    assert done.usage.completion_tokens == 400
    with pytest.raises(BadInputError, match="context of 128 tokens"):
        model.generate("word " * 200)


def test_what_does_not_go_together_is_said_before_the_load(lab):
    with pytest.raises(UnsupportedError, match="draft"):
        lab.load("nano", engine="llamacpp", draft="ngram", extra={"context_shift": True})
    with pytest.raises(UnknownNameError, match="context_shift"):
        lab.load("nano", engine="vllm", extra={"context_shift": True})
    assert not lab.models
