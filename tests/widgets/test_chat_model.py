"""A chat stays with its model, and says what it leaves out of a full context or cuts off."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from llmlab.widgets import Chat
from tests.scripted_engine import add
from tests.widgets.wire import page


@pytest.fixture
def chat(bench: Any, wire: None) -> Any:
    made = Chat(lab=bench.lab)
    yield made
    made.close()


def test_a_chat_stays_with_the_model_of_its_first_answer(chat: Any, bench: Any) -> None:
    assert (chat.model, chat.notice) == ("", {})
    chat.send("one")
    assert chat.model == "echo"
    other = add(bench.lab, "other")
    page(chat, "look")
    assert chat.notice["text"] == "other is the current model now. This chat stays with echo."
    chat.send("two")
    assert not other.prompts
    page(chat, "switch", model="other")
    assert (chat.model, chat.notice) == ("other", {})
    chat.send("three")
    assert len(other.prompts) == 1
    assert chat.turns[-1]["facts"]["model"] == "other"


def test_the_model_can_be_named_from_python(chat: Any, bench: Any) -> None:
    chat.send("one")
    other = add(bench.lab, "other")
    chat.model = "other"
    assert chat.notice == {}
    chat.send("two")
    assert len(other.prompts) == 1


def test_a_chat_takes_a_model_or_its_name(bench: Any) -> None:
    model = add(bench.lab, "other") and bench.lab.get("other")
    assert Chat(model, lab=bench.lab).model == Chat("other", lab=bench.lab).model == "other"
    assert bench.lab.get(model) is model
    with pytest.raises(UnknownNameError, match="Unknown loaded model '5'"):
        Chat(5, lab=bench.lab)  # type: ignore[arg-type]


def test_an_empty_chat_follows_the_current_model(chat: Any, bench: Any) -> None:
    other = add(bench.lab, "other")
    page(chat, "look")
    assert chat.notice == {}
    chat.send("one")
    assert (chat.model, len(other.prompts)) == ("other", 1)


def test_staying_is_remembered_until_another_model_is_loaded(chat: Any, bench: Any) -> None:
    chat.send("one")
    add(bench.lab, "other")
    page(chat, "look")
    page(chat, "stay")
    assert chat.notice == {}
    add(bench.lab, "third")
    page(chat, "look")
    assert chat.notice["switch"] == "third"
    named = Chat("echo", lab=bench.lab)
    named.send("one")
    assert named.notice == {}


def test_an_unloaded_or_replaced_model_is_not_silently_replaced(chat: Any, bench: Any) -> None:
    chat.send("one")
    add(bench.lab, "other")
    model = bench.lab._models.pop("echo")
    page(chat, "look")
    assert chat.notice == {"text": "echo isn't loaded any more.", "switch": "other", "load": "echo"}
    page(chat, "send", text="two")
    assert "Unknown loaded model 'echo'" in chat.problem["message"]
    changed = replace(model.source, spec="/somewhere/else")
    add(bench.lab, "echo")
    bench.lab.models["echo"].plan = replace(model.plan, source=changed)
    assert bench.lab.models["echo"].source.spec == "/somewhere/else"
    page(chat, "look")
    assert chat.notice["text"] == "echo is another model now: /somewhere/else, not echo."
    with pytest.raises(BadInputError, match="another model now"):
        chat.send("three")
    chat.switch("echo")
    assert chat.send("three").text == "You said: three"


def test_a_resumed_chat_says_that_its_model_is_missing(bench: Any, wire: None) -> None:
    first = Chat(lab=bench.lab)
    first.send("hello")
    first.close()
    bench.lab._models.pop("echo")
    add(bench.lab, "other")
    later = Chat(lab=bench.lab, resume=first.conversation)
    assert later.notice["text"] == "This conversation was with echo, which isn't loaded; other answers next."
    later.send("again")
    assert (later.model, later.notice) == ("other", {})
    later.close()


# -- a full context ------------------------------------------------------------------------------


@pytest.fixture
def small(wire: None) -> Any:
    """A chat with a model of 200 tokens (bytes) of context, and its engine."""
    from llmlab import Lab

    lab = Lab()
    engine = add(lab, context=200)
    engine.piece = 4
    made = Chat(lab=lab, max_tokens=10)
    made.engine = engine
    yield made
    made.close()
    lab.close()


def filled(chat: Any) -> None:
    for word in ("first", "second", "third"):
        chat.send(word * 5)


def test_the_oldest_turns_are_left_out_and_named(small: Any) -> None:
    with pytest.raises(BadInputError, match=r"The prompt has \d+ tokens"):
        filled(small)
    small.overflow = "drop"
    before = len(small.turns)
    small.system = "Keep me."
    small.send("last one")
    prompt = small.engine.prompts[-1]
    assert "Keep me." in prompt
    assert "last one" in prompt
    assert "first" not in prompt
    facts = small.turns[-1]["facts"]
    assert facts["left_out"] == [turn["id"] for turn in small.turns[: len(facts["left_out"])]]
    note = facts["notes"][0]
    assert note.startswith("the context is full: the ")
    assert len(small.turns) == before + 2
    for form in small.static().values():
        assert "left out" in form


def test_a_question_that_fits_alone_is_refused_not_cut(small: Any) -> None:
    small.overflow = "drop"
    with pytest.raises(BadInputError, match="Shorten it"):
        small.send("x" * 300)
    assert small.turns == []


def test_shift_needs_a_model_that_shifts_and_says_what_was_dropped(small: Any) -> None:
    page(small, "set", field="overflow", value="shift")
    refused = small.comm.customs("refused")[-1]
    assert "context_shift=on" in refused["problem"]["hint"]
    assert small.overflow == "error"
    with pytest.raises(UnsupportedError, match="doesn't shift"):
        Chat(lab=small.lab, overflow="shift")
    with pytest.raises(UnknownNameError, match="overflow policy"):
        Chat(lab=small.lab, overflow="drip")
    model = small.lab.get()
    model._facts = replace(model.facts, shifts=True)
    small.engine.facts = model._facts
    small.engine.piece, small.engine.say = 1, lambda *_: "w" * 400
    small.sampling = {"max_tokens": 300}
    assert small.send("go").usage.completion_tokens < 200  # the policy is still error: nothing is dropped
    assert small.turns[-1]["facts"]["notes"] == []
    page(small, "set", field="overflow", value="shift")
    assert small.send("go on").usage.completion_tokens == 300
    assert small.turns[-1]["facts"]["notes"][-1].startswith("the context was full: at least ")


def test_a_schema_answer_that_was_cut_off_is_marked(chat: Any, bench: Any) -> None:
    model = bench.lab.get()
    texts = ['{"name": "Ada Lo', '{"name": "Ada"}']
    real = model.stream
    # The scripted engine has no masks: what counts here is the answer's end.
    chat.schema = json.dumps({"type": "object", "properties": {"name": {"type": "string"}}})
    bench.engine.say = lambda *_: texts.pop(0)
    model.stream = lambda said, **options: real(said, **{k: v for k, v in options.items() if k != "schema"})
    chat.sampling = {"max_tokens": 4}
    bench.engine.say = lambda *_: '{"name": "Ada Lovelace"}'
    chat.send("Who?")
    assert chat.turns[-1]["facts"]["notes"] == ["incomplete JSON: stopped at max tokens"]
    assert "incomplete JSON" in chat.markdown()
    chat.sampling = {}
    chat.send("Who?")
    assert chat.turns[-1]["facts"]["notes"] == []


def test_settings_are_refused_with_the_reason(chat: Any) -> None:
    for field, value, why in [
        ("temperature", -1, "temperature must be 0 (greedy) or more"),
        ("top_k", 1.5, "a whole number"),
        ("think", "often", "think is on, off, low"),
        ("stop", [""], "non-empty"),
    ]:
        page(chat, "set", field=field, value=value)
        answer = chat.comm.customs("refused")[-1]
        assert answer["field"] == field
        assert why in answer["problem"]["message"]
    assert (chat.sampling, chat.think, chat.problem) == ({}, "", {})
    page(chat, "set", field="temperature", value=0)
    page(chat, "set", field="think", value="off")
    assert chat.comm.customs("refused")[-1]["problem"] == {}
    assert (chat.sampling, chat.think) == ({"temperature": 0}, "off")
    page(chat, "set", field="temperature", value="")
    assert chat.sampling == {}


def test_stopping_shows_until_the_answer_has_ended(chat: Any, bench: Any) -> None:
    bench.engine.say, bench.engine.pace = lambda *_: "word " * 2000, 0.01
    seen = []
    chat.observe(lambda change: seen.append(change["new"]), "stopping")
    page(chat, "send", text="long")
    page(chat, "stop")
    chat.last.wait(60)
    assert seen == [True, False]
