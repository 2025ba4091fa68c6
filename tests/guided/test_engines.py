"""Guided generation on both real engines: valid, typed, the same tokens, and combined with other features."""

import asyncio
import datetime as dt
import json
import math
from typing import Annotated

import pydantic
import pytest
from pydantic import BaseModel, field_validator

from llmlab.errors import BadInputError, GenerationError
from llmlab.guided import make
from llmlab.magics import register, unregister
from llmlab.types import SamplingParams
from tests.guided.schemas import corpus
from tests.guided.test_schemas import validator

ASK = "Extract name, age, job and city as JSON: Maria Lopez, 42, works as a baker in Lisbon."


class Person(BaseModel):
    name: str
    age: int
    job: str
    city: str


MARIA = Person(name="Maria Lopez", age=42, job="baker", city="Lisbon")
KINDS = [
    {"schema": Person},
    {"schema": {"type": "array", "items": {"enum": ["größe", "名前"]}, "minItems": 3, "maxItems": 3}},
    {"type": int},
    {"type": dt.date},
    {"type": bool},
    {"regex": r"[A-Z]{3}-\d{2}"},
    {"choice": ["yes", "no", 'né"e']},
    {"grammar": 'start: "a" ~ 3 "b"'},
    {"grammar": 'root ::= "x" | "yz"'},
]


def test_a_model_comes_back_typed(model):
    answer = model.generate(ASK, schema=Person, temperature=0)
    assert answer.parsed == MARIA
    assert answer.finish_reason == "stop"
    assert answer.token_ids[-1] in model.facts.end_ids
    # The model was trained on this format, so the constraint doesn't change its text.
    assert answer.token_ids == model.generate(ASK, temperature=0).token_ids


def test_both_engines_write_the_same_tokens_under_every_kind(llamacpp, vllm):
    answers = {}
    for model in (llamacpp, vllm):
        streams = [model.stream(ASK, temperature=0, max_tokens=60, **asked) for asked in KINDS]
        for stream in streams:
            stream.start()
        answers[model.engine] = [stream.result() for stream in streams]
    for asked, one, two in zip(KINDS, *answers.values(), strict=True):
        assert one.finish_reason == two.finish_reason == "stop", asked
        assert one.token_ids == two.token_ids, asked
        assert one.parsed == two.parsed is not None, asked


def test_schemas_of_the_corpus_give_only_valid_texts(model):
    named = [*corpus()[:44], *corpus()[44::30]]
    asked = []
    for name, schema in named:
        try:
            asked.append((name, schema, make(schema=schema)))
        except BadInputError:
            continue
    answers = model.generate(
        ["Write a record as JSON."] * len(asked),
        guide=[guide for _, _, guide in asked],
        max_tokens=160,
        temperature=1.2,
        seed=1,
        complete=True,
    )
    stopped = 0
    for (name, schema, _), answer in zip(asked, answers, strict=True):
        assert answer.finish_reason in ("stop", "length"), name
        if answer.finish_reason == "stop":
            validator(schema, answer.text)
            assert answer.parsed == json.loads(answer.text)
            stopped += 1
        else:
            assert answer.parsed is None
    assert stopped >= 0.9 * len(asked)


def test_different_constraints_and_none_in_one_batch(model):
    answers = model.generate(
        [ASK] * 4, schema=[Person, None, {"type": "integer"}, {"const": "x"}], temperature=0, max_tokens=60
    )
    assert answers[0].parsed == MARIA
    assert answers[1].guidance is None
    assert answers[1].token_ids == answers[0].token_ids
    assert isinstance(answers[2].parsed, int)
    assert answers[3].parsed == "x"
    with pytest.raises(BadInputError, match="2, but there are 3 prompts"):
        model.generate([ASK] * 3, type=[int, str])


def test_n_seeds_and_logprobs(model):
    asked = {"schema": Person, "temperature": 1.3, "seed": 5, "n": 3, "logprobs": 2, "max_tokens": 120}
    one, two = model.generate("Invent a person.", **asked), model.generate("Invent a person.", **asked)
    assert [c.text for c in one.choices] == [c.text for c in two.choices]
    for choice in one.choices:
        assert len(choice.logprobs) == len(choice.token_ids)
        assert (choice.parsed is None) == (choice.finish_reason != "stop")
        if choice.parsed is not None:
            assert Person.model_validate_json(choice.text) == choice.parsed


def test_log_probabilities_are_the_models_own(llamacpp, vllm):
    """They are taken before the mask: a forced token keeps the small probability that the model gave it."""
    seen = []
    for model in (llamacpp, vllm):
        answer = model.generate(ASK, regex="ZZ", temperature=0, logprobs=1)
        assert answer.logprobs[0].logprob < -3
        assert answer.logprobs[0].top[0][0] != answer.token_ids[0]
        seen.append(answer)
    assert seen[0].logprobs[0].top[0][0] == seen[1].logprobs[0].top[0][0]
    assert seen[0].guidance.steps[0].removed == pytest.approx(seen[1].guidance.steps[0].removed, abs=0.05)


def test_max_tokens_is_reached(model):
    answer = model.generate(ASK, schema=Person, temperature=0, max_tokens=9)
    assert answer.finish_reason == "length"
    assert answer.parsed is None
    assert len(answer.token_ids) == 9
    # A text that is complete at the last token counts as finished, with or without an end token.
    assert model.generate(ASK, choice=["yes"], max_tokens=10).finish_reason == "stop"
    size = len(model.tokenize("False"))
    greedy = {"choice": ["False"], "temperature": 0}  # drawn tokens may divide the word differently each time
    last = model.generate(ASK, **greedy, max_tokens=len(model.generate(ASK, **greedy).token_ids) - 1)
    assert last.finish_reason == "stop"
    assert last.parsed == "False"
    assert len(last.token_ids) >= size


@pytest.mark.parametrize("budget", [24, 31, 40])
def test_complete_closes_within_the_budget(model, budget):
    answer = model.generate("Say something.", schema=Person, temperature=1, seed=2, max_tokens=budget, complete=True)
    assert answer.finish_reason == "stop"
    assert isinstance(answer.parsed, Person)
    assert len(answer.token_ids) <= budget


def test_complete_is_the_same_on_both_engines(llamacpp, vllm):
    asked = {"schema": Person, "temperature": 0, "max_tokens": 30, "complete": True}
    one, two = llamacpp.generate(ASK, **asked), vllm.generate(ASK, **asked)
    assert one.text == two.text
    assert one.token_ids == two.token_ids
    assert one.guidance.closed == two.guidance.closed > 0


def test_stop_strings_end_a_text_only_where_the_constraint_allows(model):
    answer = model.generate(ASK, schema=Person, temperature=0, stop=["age", '"', "}"])
    assert answer.parsed == MARIA
    answer = model.generate(ASK, regex=r"[a-z]{2,30}", temperature=0, max_tokens=20, stop=["a", "e", "i", "o", "u"])
    assert answer.finish_reason in ("stop", "length")
    if answer.finish_reason == "stop":
        assert 2 <= len(answer.text) <= 30
        assert not set(answer.text[2:]) & set("aeiou")


def test_streams_fill_in(model):
    from llmlab.guided import partial_json

    stream = model.stream(ASK, schema=Person, temperature=0)
    text, seen = "", []
    for chunk in stream:
        text += chunk.text
        seen.append(partial_json(text))
    assert text == stream.result().text
    assert seen[-1] == MARIA.model_dump()
    assert stream.result().parsed == MARIA


def test_a_cancelled_stream_has_no_value(model):
    stream = model.stream("Invent many.", schema={"type": "array", "items": {"type": "integer"}, "minItems": 300})
    next(iter(stream))
    stream.cancel()
    assert stream.partial().finish_reason == "interrupted"
    assert stream.partial().parsed is None
    assert model.generate(ASK, schema=Person, temperature=0).parsed == MARIA


def test_coroutines_share_a_batch(model):
    async def ask():
        return await asyncio.gather(
            model.agenerate(ASK, schema=Person, temperature=0), model.agenerate(ASK, type=bool, temperature=0)
        )

    one, two = asyncio.run(ask())
    assert one.parsed == MARIA
    assert isinstance(two.parsed, bool)


def test_what_the_constraint_did_is_reported(model):
    easy = model.generate(ASK, schema=Person, temperature=0).guidance
    assert easy.removed < 0.01
    assert easy.changed == 0
    assert not easy.warning
    assert len(easy.steps) == len(model.generate(ASK, schema=Person, temperature=0).token_ids)
    hard = model.generate(ASK, regex="ZZZ", temperature=0).guidance
    assert hard.removed > 0.4
    assert "works against the model" in hard.warning
    for step in hard.steps:
        assert 0 <= step.removed <= 1
        assert step.probability <= step.wanted_probability + 1e-6
        assert math.isfinite(step.probability)
        assert step.wanted


def test_bad_constraints_start_nothing(model):
    for asked in ({"choice": []}, {"regex": "("}, {"regex": "a+"}, {"schema": {"type": "x"}}, {"grammar": 'x: "a"'}):
        with pytest.raises(BadInputError):
            model.stream(ASK, **asked)
    with pytest.raises(BadInputError, match="ignore_eos"):
        model.stream(ASK, type=int, ignore_eos=True)
    with pytest.raises(BadInputError, match="complete"):
        model.stream(ASK, complete=True)
    assert model.generate(ASK, regex="a+", max_tokens=5).text.startswith("a")
    assert model.stream(ASK, regex="a+", params=SamplingParams(max_tokens=5)).result().text.startswith("a")
    assert model.in_flight == 0


def test_a_validator_of_the_types_own_leaves_a_reason(model):
    class Choosy(Person):
        @field_validator("name")
        @classmethod
        def _never(cls, value):
            message = "no name is good enough"
            raise ValueError(message)

    answer = model.generate(ASK, schema=Choosy, temperature=0)
    assert answer.finish_reason == "stop"
    assert answer.parsed is None
    assert "no name is good enough" in answer.choices[0].parse_error


def test_a_validator_that_rejects_makes_an_error_never_a_stop(model):
    from dataclasses import replace

    def never(text):
        message = "not today"
        raise ValueError(message)

    guide = replace(make(schema={"type": "boolean"}), check=never)
    with pytest.raises(GenerationError, match="not today"):
        model.generate(ASK, guide=guide)
    assert model.generate(ASK, type=bool).finish_reason == "stop"


@pytest.fixture
def cell(model, shared_lab, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.reset()
    register(shell, lambda: shared_lab)
    shared_lab.use(model.name)

    def run(text, fails=False):
        ran = shell.run_cell(text)
        said = capsys.readouterr().out
        assert ran.success is not fails, said
        return said if fails else ran.result

    run.shell = shell
    yield run
    unregister(shell)
    InteractiveShell.clear_instance()


def test_the_magic(cell, tmp_path):
    cell.shell.user_ns |= {"Person": Person, "pattern": "[A-Z]{3}", "text": ASK}
    file = tmp_path / "schema.json"
    file.write_text('{"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}')
    assert cell("%%llm --schema Person -t 0 -o kept\n{{text}}").parsed == MARIA
    view = cell("%llm guided --explain")
    assert "Person (json)" in view.text()
    assert "probability" in view._repr_html_()
    assert cell("%llm guided kept --rows 3").text().count("\n") < 12
    assert len(cell(f"%%llm --schema {file} -t 0\nhi").parsed) == 2
    assert cell("%%llm --type date -t 0\nWhen?").parsed.year > 0
    cell.shell.user_ns["kinds"] = {"few": Annotated[list[int], pydantic.Field(max_length=2)]}
    assert isinstance(cell("%%llm --type list[str] -t 0\nName three animals.").parsed, list | None)
    assert len(cell("%%llm --type \"kinds['few']\" -t 0 --max-tokens 60\nCount.").parsed) <= 2
    assert cell('%%llm --type "Literal[1, -1] | None" -t 0\nWhich?').parsed in (1, -1, None)
    found = cell("%%llm --type \"tuple[date, Optional[Literal['a b']]]\" -t 0\nWhen?").parsed
    assert found[0].year > 0
    assert found[1] in ("a b", None)
    assert "no variable or type 'Persn'. Did you mean 'Person'?" in cell("%%llm --type list[Persn]\nhi", fails=True)
    for wrong in ("list[", "f(1)", "[x for x in y]", "1 + 1", "int[str]", "date.nothing"):
        assert f"--type {wrong}" in cell(f'%%llm --type "{wrong}"\nhi', fails=True).replace("'", "")
    assert cell("%%llm --choice yes,no -t 0\nIs it?").parsed in ("yes", "no")
    assert len(cell("%%llm --regex pattern -t 0\nhi").parsed) == 3
    short = cell("%%llm --schema Person -t 0 --max-tokens 8\nhi")
    assert short.parsed is None
    assert "reached max_tokens before the output was complete" in repr(short) or short.finish_reason == "length"
    assert cell("%%llm --schema Person -t 0 --max-tokens 30 --complete\nhi").parsed is not None
    assert "no variable or file 'Persn'. Did you mean 'Person'?" in cell("%%llm --schema Persn\nhi", fails=True)
    assert "schema and type can't be combined" in cell("%%llm --schema Person --type int\nhi", fails=True)
    cell("%%llm -t 0 --max-tokens 3\nhi")
    assert "had no constraint" in cell("%llm guided --explain", fails=True)
