"""Constraints hold with any adapter, several in one batch, and in a quantized model."""

import json

import jsonschema
import pytest

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PROMPT = "Extract name and age as JSON: Anna Keller, 34, works as a nurse in Lyon."


def check(completion):
    if completion.finish_reason == "stop":
        jsonschema.validate(json.loads(completion.text), PERSON)
        assert completion.parsed == json.loads(completion.text)
    else:
        assert completion.parsed is None


def test_a_batch_of_adapters_under_one_schema(model):
    names = ["pirate", "terse", "sql"]
    for name in names:
        model.add_adapter(name, name)
    try:
        adapters = ["none", *names, "pirate:0.5+terse:0.5"]
        done = model.generate([PROMPT] * len(adapters), adapter=adapters, schema=PERSON, temperature=0, max_tokens=64)
    finally:
        for name in names:
            model.remove_adapter(name)
    for one in done:
        check(one)
    assert done[0].parsed == {"name": "Anna Keller", "age": 34}


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M"])
def test_a_quantized_model_under_a_schema(lab, quant):
    done = lab.load("nano", engine="llamacpp", quant=quant).generate(
        PROMPT, schema=PERSON, temperature=0, max_tokens=64
    )
    assert done.finish_reason == "stop"
    check(done)
