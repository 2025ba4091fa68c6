"""What an experiment declares: prompts over data, axes with labels, quants on their engines."""

import json

import pandas as pd
import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.experiments.design import make
from tests.experiments.conftest import COUNTRIES


def test_every_prompt_is_asked_of_every_row():
    design = make(
        "x", prompts=["{{ a }} + {{b}}?", "Add {{a}}."], data=[{"a": 1, "b": 2}, {"a": 3, "b": 4}], models="nano"
    )
    assert [one.text for one in design.questions()] == ["1 + 2?", "3 + 4?", "Add 1.", "Add 3."]
    assert [(one.index, one.template, one.row) for one in design.questions()][2] == (2, 1, 0)


def test_a_conversation_is_filled_in_turn_by_turn():
    turns = [{"role": "system", "content": "Speak {{tongue}}."}, {"role": "user", "content": "Hi"}]
    design = make("x", prompts=[turns], data=[{"tongue": "Latin"}], models="nano")
    assert [turn.content for turn in design.questions()[0].messages] == ["Speak Latin.", "Hi"]
    assert len(make("x", prompts=turns, data=[{"tongue": "Latin"}], models="nano").templates) == 1


@pytest.mark.parametrize("form", ["list", "frame", "jsonl", "dataset"])
def test_data_comes_in_common_forms(form, tmp_path):
    given = COUNTRIES
    if form == "frame":
        given = pd.DataFrame(COUNTRIES)
    elif form == "jsonl":
        given = tmp_path / "rows.jsonl"
        given.write_text("\n".join(json.dumps(row) for row in COUNTRIES))
    elif form == "dataset":
        import datasets

        given = datasets.Dataset.from_list(COUNTRIES)
    found = make("x", prompts=["{{country}}?"], data=given, models="nano").questions()
    assert [(one.text, one.reference) for one in found][:2] == [("France?", "Paris"), ("Italy?", "Rome")]


def test_a_quant_runs_on_the_engine_that_has_it():
    both = make("x", prompts="Hi", models=["nano"], engines=["llamacpp", "vllm"], quants=["F16", "Q4_K_M", "bf16"])
    found = [(one.engine, one.quant) for one in both.subjects()]
    assert found == [("llamacpp", "F16"), ("llamacpp", "Q4_K_M"), ("vllm", "bf16")]
    alone = make("x", prompts="Hi", models=["nano"], quants=["bf16", "q4"])
    assert [(one.engine, one.quant) for one in alone.subjects()] == [("vllm", "bf16"), ("llamacpp", "Q4_K_M")]
    other = make("x", prompts="Hi", models=["nano"], engines=["vllm"], quants=["F16"])
    assert [(one.engine, one.quant) for one in other.subjects()] == [("vllm", "fp16")]
    with pytest.raises(BadInputError, match="Q4_K_M runs on none of the experiment's engines"):
        make("x", prompts="Hi", models=["nano"], engines=["vllm"], quants=["Q4_K_M"]).subjects()


def test_axes_have_labels():
    design = make(
        "x",
        prompts="Hi",
        models="nano",
        adapters=[None, "pirate:0.5", "./my/own-adapter"],
        systems={"short": "Answer in one word.", "plain": None},
        params=[{"temperature": 0}, llmlab.SamplingParams(temperature=0.8, top_p=0.9)],
        constraints=[None, {"choice": ["yes", "no"]}],
        seeds=2,
        repeats=2,
    )
    assert design.adapters == {"none": None, "pirate:0.5": "pirate:0.5", "own-adapter": "./my/own-adapter"}
    assert design.systems == {"short": "Answer in one word.", "plain": None}
    assert list(design.params) == ["temperature=0", "temperature=0.8 top_p=0.9"]
    assert list(design.constraints) == ["none", "choice=['yes', 'no']"]
    settings = list(design.settings())
    assert len(settings) == 3 * 2 * 2 * 2 * 2 * 2
    assert len({one.request_seed for one in settings}) == 4
    assert list(make("x", prompts="Hi", models="nano", params={"temperature": 0.5}).params) == ["temperature=0.5"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompts": []}, "prompts is empty"),
        ({"models": []}, "at least one model"),
        ({"prompts": ["{{cuontry}}?"], "data": COUNTRIES}, "Did you mean 'country'"),
        ({"prompts": ["{{b}}"], "data": [{"b": 1}, {"a": 1}]}, "Unknown variable of a prompt 'b'"),
        ({"prompts": ["{{b}}"], "data": [{"b": 1}, {"b": None}]}, "A row has no value in the column 'b'"),
        ({"prompts": ["{{b}}"], "data": [{"b": 1}, {"b": float("nan")}]}, "A row has no value in the column 'b'"),
        ({"data": []}, "is empty"),
        ({"repeats": 0}, "repeats must be 1 or more"),
        ({"seeds": [-1]}, "seeds must be"),
        ({"params": [{"seed": 3}]}, "can't have a seed"),
        ({"params": [{"temprature": 3}]}, "temperature"),
        ({"constraints": [{"chioce": ["a"]}]}, "Did you mean 'choice'"),
        ({"engines": ["lamacpp"], "quants": ["F16"]}, "Did you mean 'llamacpp'"),
    ],
)
def test_what_can_not_be_declared_is_refused_before_a_model_is_loaded(options, says):
    def declared():
        design = make("x", **{"prompts": "Hi", "models": "nano", **options})
        return design.subjects(), design.questions()

    with pytest.raises(BadInputError, match=says):
        declared()


def test_names_are_checked_when_it_is_declared():
    with pytest.raises(UnknownNameError, match="Did you mean 'contains'"):
        llmlab.experiment("x", prompts="Hi", models="nano", scorers=["contians"])
    with pytest.raises(BadInputError, match="Two scorers are called exact"):
        llmlab.experiment("x", prompts="Hi", models="nano", scorers=["exact", "exact"])
    with pytest.raises(UnknownNameError, match="Did you mean 'quants'"):
        llmlab.experiment("x", prompts="Hi", models="nano", quant=["F16"])
