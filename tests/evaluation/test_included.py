"""The tasks that come with llmlab, and what is said without lm-eval."""

import json
import sys

import pytest

import llmlab
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.evaluation.tasks import INCLUDED, included
from llmlab.zoo.training import world


def rows(name):
    return [json.loads(line) for line in (INCLUDED / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_the_tasks_that_come_with_llmlab_are_right():
    assert set(included()) == {"countries", "capitals"}
    facts = {(entity, relation): value for entity, relation, value in world.facts()}
    capitals = {f"The capital of {e} is": value for (e, relation), value in facts.items() if relation == "capital"}
    assert {one["text"]: one["answer"] for one in rows("capitals")} == capitals
    countries = rows("countries")
    assert len(countries) == 3 * len(capitals)
    for one in countries:
        assert len(set(one["choices"])) == 4
        entity = next(e for e in world.COUNTRIES if e in one["text"])
        assert one["choices"][one["answer"]] == facts[entity, one["about"]]


def test_without_lm_eval_it_is_named(llamacpp, monkeypatch):
    for name in [one for one in sys.modules if one.split(".")[0] == "lm_eval" or one == "llmlab.evaluation.harness"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("llmlab._imports._loaded", set())  # tests with lm-eval may have run before
    with pytest.raises(EngineMissingError, match="lm-eval") as caught:
        llmlab.evaluate(llamacpp, "countries")
    assert "llmlab[evals]" in caught.value.hint
    with pytest.raises(EngineMissingError, match="lm-eval"):
        llmlab.compare_quants("nano", ["F16"], tasks=["countries"], windows=1, questions=1, speed=False)


@pytest.mark.parametrize(("option", "value"), [("limit", 0), ("shots", -1), ("limit", 2.5), ("shots", True)])
def test_wrong_numbers_are_refused_before_anything_else(llamacpp, option, value):
    with pytest.raises(BadInputError, match=option):
        llmlab.evaluate(llamacpp, "countries", **{option: value})
