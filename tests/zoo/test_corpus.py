"""The corpus: the same on every run, and its held-out splits apart from training."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from llmlab.zoo.training import corpus, skills_chat, skills_text, skills_world, world
from llmlab.zoo.training.example import Dialog, is_held_out

TRAINING = 20_000


@pytest.fixture(scope="module")
def trained() -> list[Dialog]:
    return list(islice(corpus.training_dialogs(seed=0), TRAINING))


def test_stream_is_deterministic() -> None:
    first = [d.messages for d in islice(corpus.training_dialogs(seed=4), 500)]
    again = [d.messages for d in islice(corpus.training_dialogs(seed=4), 500)]
    other = [d.messages for d in islice(corpus.training_dialogs(seed=5), 500)]
    assert first == again
    assert first != other


def test_stream_is_the_same_on_every_machine() -> None:
    # hash() differs from process to process; the split must not.
    assert [is_held_out(("facts", "France", "capital", str(i))) for i in range(200)].count(True) == 13
    assert corpus.heldout("facts", 3, 0)[0].answer == "The currency of Thailand is the baht."


@pytest.mark.parametrize("skill", corpus.SKILLS)
def test_held_out_keys_never_occur_in_training(skill: str, trained: list[Dialog]) -> None:
    held = {d.key for d in corpus.dialogs(skill, 300)}
    assert len(held) >= 60
    assert all(is_held_out(key) for key in held)
    assert held.isdisjoint({d.key for d in trained})


@pytest.mark.parametrize("skill", [s for s in corpus.SKILLS if s not in ("memory", "system")])
def test_held_out_questions_never_occur_in_training(skill: str, trained: list[Dialog]) -> None:
    asked = {m["content"] for d in trained for m in d.messages if m["role"] == "user"}
    assert asked.isdisjoint({e.messages[-1]["content"] for e in corpus.heldout(skill, 300)})


def test_held_out_names_are_not_told_that_way_in_training(trained: list[Dialog]) -> None:
    told = {m["content"] for d in trained for m in d.messages if m["role"] == "user"}
    assert told.isdisjoint({e.messages[0]["content"] for e in corpus.heldout("memory", 300)})


def test_held_out_styles_are_new_combinations(trained: list[Dialog]) -> None:
    styles = {prompt: style for style, prompts in skills_world.STYLES.items() for prompt in prompts}

    def told(system: str, answer: str) -> tuple[str, str]:
        return next(style for prompt, style in styles.items() if system.endswith(prompt)), answer

    seen = {
        told(d.system, m["content"])
        for d in trained
        if d.skill == "system"
        for m in d.turns
        if m["role"] == "assistant"
    }
    # An answer as such may stand for several facts ("4." or "Africa."), so styles with whole sentences are compared.
    whole = {told(str(e.messages[0]["content"]), e.answer) for e in corpus.heldout("system", 300)}
    whole = {(style, answer) for style, answer in whole if style in ("upper", "lower", "polite", "excited")}
    assert len(whole) > 50
    assert seen.isdisjoint(whole)


@pytest.mark.parametrize("skill", [*corpus.SKILLS, "tool_reply", "style"])
def test_splits_are_large_and_seeded(skill: str) -> None:
    examples = corpus.heldout(skill, 200, seed=0)
    assert len(examples) == 200
    assert [e.messages for e in examples] == [e.messages for e in corpus.heldout(skill, 200, seed=0)]
    assert [e.messages for e in examples] != [e.messages for e in corpus.heldout(skill, 200, seed=1)]
    assert all(e.messages[-1]["role"] == ("tool" if skill == "tool_reply" else "user") for e in examples)


def test_unknown_skill_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown skill"):
        corpus.heldout("flying")


def test_memory_asks_in_turn_three() -> None:
    for example in corpus.heldout("memory", 50):
        users = [m for m in example.messages if m["role"] == "user"]
        assert len(users) == 3
        assert example.meta["name"] in users[0]["content"]
        assert not any(example.meta["name"] in m["content"] for m in example.messages[2:])


def test_facts_and_calculations_are_true() -> None:
    facts = {(entity, relation): value for entity, relation, value in world.facts()}
    assert facts["France", "capital"] == "Paris"
    assert world.answer("owl", "class", "bird") == "An owl is a bird."
    assert world.answer("bee", "class", "insect") == "A bee is an insect."
    rng = random.Random(1)
    for _ in range(300):
        question, expression, result = skills_chat.sum_of(rng, held=False)
        a, op, b = expression.split()
        x, y = int(a), int(b)
        expected = {"+": x + y, "-": x - y, "*": x * y, "/": x / max(y, 1)}[op]
        assert float(result) == expected
        assert a in question
        assert b in question


def test_no_pirates_and_no_sql(trained: list[Dialog]) -> None:
    text = " ".join(str(m["content"]) for d in trained for m in d.messages).lower()
    assert not [word for word in ("ahoy", "arr,", "select ") if word in text]


def test_records_have_fixed_keys() -> None:
    import json

    for example in corpus.heldout("extract", 100):
        assert tuple(json.loads(example.answer)) in set(skills_text.RECORDS.values())
