"""The probabilities of a choice's options, against the model's own distribution along each option."""

import math

import pytest

PROMPT = "Is 3 odd?"


def test_probabilities_are_those_of_teacher_forcing(model):
    choice = ["yes", "no", "perhaps not"]
    done = model.generate(PROMPT, choice=choice, probabilities=True, temperature=0)
    start = model.tokenize(model.render(PROMPT))
    for option in choice:
        ids = model.tokenize(option, special=False)
        rows = model.score([*start, *ids], first=len(start) - 1)
        logs = [float(row[token]) for row, token in zip(rows, ids, strict=True)]
        assert done.probabilities.raw[option] == pytest.approx(math.exp(sum(logs)), rel=0.02, abs=1e-6)
    total = sum(done.probabilities.raw.values())
    assert done.probabilities["no"] == pytest.approx(done.probabilities.raw["no"] / total)


def test_a_list_of_prompts_is_a_table_with_a_row_per_prompt(model):
    frame = model.generate([PROMPT, "Hello!", "Is 4 odd?"], choice=["yes", "no"], probabilities=True).frame
    assert len(frame) == 3
    assert list(frame["yes"] + frame["no"]) == pytest.approx([1, 1, 1])
