"""Keys in any order: `"x-guidance": {"key_order": "any"}`."""

import pytest

from llmlab.errors import BadInputError
from llmlab.guided import make
from llmlab.guided import schema as schema_module
from tests.guided.walker import accepts

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "first name": {"type": "string"}},
    "required": ["age"],
    "additionalProperties": False,
}
ANY = {**PERSON, "x-guidance": {"key_order": "any"}}
SWAPPED = '{"first name":"Ada","age":36}'


def test_keys_come_in_the_order_of_the_schema_unless_it_says_otherwise(compiler):
    assert not accepts(compiler, make(schema=PERSON), SWAPPED)
    assert accepts(compiler, make(schema=ANY), SWAPPED)
    assert make(schema=ANY).parse(SWAPPED) == {"first name": "Ada", "age": 36}


@pytest.mark.parametrize("text", ['{"age":"x"}', '{"agee":1}', '{"first_name":"Ada","age":1}'])
def test_the_mask_keeps_names_and_types(compiler, text):
    assert not accepts(compiler, make(schema=ANY), text)


@pytest.mark.parametrize("text", ['{"first name":"Ada"}', '{"age":1,"age":2}', '{"age":1,"\\u0061ge":2}'])
def test_required_and_repeated_keys_are_checked(text):
    guide = make(schema=ANY)
    assert guide.problem(text)
    assert "/required" in guide.checked


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (
            {**PERSON, "required": [], "anyOf": [{"required": ["age"]}, {"required": ["first name"]}]},
            SWAPPED,
            "{}",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"properties": {"d/e": {"$ref": "#/properties/a"}}}},
                "patternProperties": {"^c": {"$ref": "#/properties/b/properties/d~1e"}},
                "additionalProperties": False,
            },
            '{"c":"","b":{"d/e":""},"a":""}',
            '{"c":"","b":{"d/e":1},"a":""}',
        ),
        (
            {
                "type": "object",
                "properties": {"x-a": {"enum": ["1"]}, "b": {"type": "integer"}},
                "patternProperties": {"^x-": {"type": "string"}},
                "additionalProperties": False,
            },
            '{"b":1,"x-b":"2","x-a":"1"}',
            '{"b":1,"x-a":"2"}',
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                "additionalProperties": False,
            },
            '{"c":1,"b":1}',
            '{"b":1,"a":1}',
        ),
    ],
    ids=["anyOf", "reference", "pattern", "oneOf"],
)
def test_any_order_accepts_what_the_schema_accepts(compiler, schema, right, wrong):
    guide = make(schema={**schema, "x-guidance": {"key_order": "any"}})
    assert accepts(compiler, guide, right)
    assert not guide.problem(right)
    assert guide.problem(wrong)


def test_the_order_of_keywords_does_not_matter(compiler):
    apart = {"additionalProperties": False, "allOf": [{"type": "object"}], "patternProperties": {"^a": {"const": 1}}}
    assert accepts(compiler, make(schema=apart), '{"ab":1}')
    assert not accepts(compiler, make(schema=apart), '{"b":1}')


def test_an_object_with_very_many_properties_keeps_their_order(compiler, monkeypatch):
    read = []
    refusal = schema_module._refusal
    monkeypatch.setattr(schema_module, "_refusal", lambda text: read.append(text) or refusal(text))
    properties = {f"p{i}": {"type": "integer"} for i in range(400)}
    guide = make(schema={"properties": properties, "type": "object", "x-guidance": {"key_order": "any"}})
    # Compiled once: with 400 patterns the library takes half a minute.
    assert len(read) == 1
    assert accepts(compiler, guide, '{"p1":1,"p2":2}')
    assert not accepts(compiler, guide, '{"p2":2,"p1":1}')


def test_an_unknown_order_is_refused():
    with pytest.raises(BadInputError, match="key_order"):
        make(schema={**PERSON, "x-guidance": {"key_order": "sorted"}})


def test_an_answer_with_any_order_satisfies_the_schema(model):
    done = model.generate("Ada is 36.", schema=ANY, complete=True, max_tokens=80, temperature=0.7, seed=0)
    assert done.finish_reason == "stop"
    assert "age" in done.parsed
