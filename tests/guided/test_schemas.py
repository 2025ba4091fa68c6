"""The schema corpus: each compiles and allows only valid texts, or is refused by name. No model is needed."""

import json
import time

import jsonschema
import pytest

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided import make
from llmlab.guided import schema as schema_module
from llmlab.guided.compiler import COMPILE_LIMIT_S
from llmlab.guided.formats import KNOWN
from tests.guided.schemas import corpus, hand_written
from tests.guided.walker import accepts, walk

REFUSED = {"look-ahead", "remote"}


def validator(schema, text):
    """Whether jsonschema accepts a text."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))


def test_the_hand_written_ones_compile_but_for_those_known():
    refused = set()
    for name, schema in hand_written():
        try:
            make(schema=schema)
        except BadInputError as error:
            refused.add(name)
            assert "'" in str(error), name
    assert refused == REFUSED


@pytest.mark.parametrize("part", range(4))
def test_random_texts_satisfy_the_validator(compiler, part):
    ended = 0
    for name, schema in corpus()[part::16]:
        started = time.process_time()
        try:
            guide = make(schema=schema)
        except BadInputError:
            continue
        compiler.compile(guide)
        assert time.process_time() - started < COMPILE_LIMIT_S, name
        for seed in range(2):
            text = walk(compiler, guide, seed)
            if text is not None and not (guide.checked and guide.problem(text)):
                validator(schema, text)
                ended += 1
    assert ended > 20


@pytest.mark.parametrize("form", sorted(KNOWN))
def test_formats_are_as_strict_as_the_validator(compiler, form):
    schema = {"type": "string", "format": form}
    guide = make(schema=schema)
    texts = [text for seed in range(60) if (text := walk(compiler, guide, seed, 300)) is not None]
    assert len(texts) > 30
    for text in texts:
        validator(schema, text)


@pytest.mark.parametrize(
    "bound", [{"exclusiveMaximum": -51.61}, {"exclusiveMaximum": 7}, {"maximum": 7, "exclusiveMaximum": 9}]
)
def test_a_number_with_many_digits_is_not_its_open_bound(compiler, bound):
    guide = make(schema={"type": "number", "minimum": -90, **bound})
    for text in ("-51.610000000000000000001", "6.9999999999999999999999"):
        ids = compiler.tokenizer.tokenize_str(text)
        matcher = compiler.matcher(guide)
        if matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting():
            assert guide.problem(text) == ""


def test_negative_multiples_are_written_out(compiler):
    for schema, good, bad in (
        (
            {"type": "integer", "multipleOf": 25, "exclusiveMinimum": -725, "maximum": -650},
            ["-700", "-675", "-650"],
            ["-725", "-660"],
        ),
        ({"type": "number", "multipleOf": 0.5, "minimum": -2, "exclusiveMaximum": -1}, ["-2", "-1.5"], ["-1", "-1.7"]),
    ):
        guide = make(schema=schema)
        for text in good + bad:
            ids = compiler.tokenizer.tokenize_str(text)
            matcher = compiler.matcher(guide)
            assert (matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()) is (text in good)
            assert (guide.problem(text) == "") is (text in good)


SILENT = [
    {"uniqueItems": False}, {"type": "array", "uniqueItems": True, "maxItems": 1}, {"dependencies": {}},
    {"dependentRequired": {"a": []}}, {"dependentSchemas": {"a": True}}, {"propertyNames": True}, {"propertyNames": {}},
    {"if": {"type": "null"}}, {"then": {"type": "null"}}, {"else": False}, {"if": {"type": "null"}, "then": {}},
    {"unevaluatedProperties": True}, {"unevaluatedItems": {}}, {"minContains": 2}, {"contains": {"type": "null"}, "minContains": 0},
    {"not": False}, {"maxItems": 2.0}, {"$schema": "http://json-schema.org/schema#"},
    {"$schema": "https://json-schema.org/draft-07/schema#"}, {"$schema": "http://json-schema.org/draft-05/schema#"},
    {"$schema": "http://json-schema.org/draft-04/schema"}, {"$schema": "https://json-schema.org/draft/2020-12/schema#"},
]  # fmt: skip


@pytest.mark.parametrize("schema", SILENT, ids=str)
def test_keywords_that_say_nothing_are_not_refused(compiler, schema):
    guide = make(schema={"properties": {"a": schema}} if "$schema" not in schema else schema)
    assert accepts(compiler, guide, '{"a": []}')
    assert guide.problem('{"a": []}') == ""


@pytest.mark.parametrize(
    ("schema", "bad"),
    [
        ({"type": "array", "uniqueItems": True}, "[1, 1]"), ({"contains": True}, "[]"),
        ({"contains": True, "minContains": 0, "maxContains": 1}, "[1, 2]"), ({"propertyNames": False}, '{"a": 1}'),
        ({"dependentRequired": {"a": ["b"]}}, '{"a": 1}'),
    ],
)  # fmt: skip
def test_keywords_that_say_something_are_enforced(compiler, schema, bad):
    guide = make(schema=schema)
    assert guide.problem(bad)
    assert guide.checked or not accepts(compiler, guide, bad)


@pytest.mark.parametrize("schema", [{"not": True}, {"if": True, "then": False}], ids=str)
def test_keywords_that_nothing_satisfies_are_refused(schema):
    with pytest.raises(BadInputError, match="No text satisfies the schema"):
        make(schema=schema)


@pytest.mark.parametrize("padding", [10, 100_000])
def test_the_search_for_the_refused_part_is_bounded(monkeypatch, padding):
    read, normalised = [], []
    refusal, normal = schema_module._refusal, schema_module._normal
    monkeypatch.setattr(schema_module, "_refusal", lambda text: read.append(len(text)) or refusal(text))
    monkeypatch.setattr(schema_module, "_normal", lambda one: normalised.append(one) or normal(one))
    properties = {f"p{i}": {"type": "object", "properties": {"a": {"type": "string"}}} for i in range(150)}
    odd = {"type": "number", "multipleOf": 12345678899999998}
    # More odd ones than are loosened.
    odds = {f"odd{i}": odd for i in range(10)}
    schema = {"type": "object", "properties": {**properties, **odds}, "description": "x" * padding}
    schema["$defs"] = {"text": {"enum": ["x" * padding]}}
    with pytest.raises(UnsupportedError) as raised:
        make(schema=schema)
    # It is looked for twice: to loosen the schema, and to explain the refusal.
    assert sum(read) < 2 * schema_module._MOST_SEARCHED + 4 * read[0]
    # Before, once for each subschema.
    assert len(normalised) < 30
    assert ("at /properties/odd0/multipleOf" in str(raised.value)) is (padding == 10)
