"""Inputs that were reported as wrong, as they were reported; on both engines where a model writes."""

import typing

import pytest

from llmlab.errors import BadInputError, LlmLabError, UnsupportedError
from llmlab.guided import make
from tests.guided.walker import accepts

DECIMALS = {"type": "number", "multipleOf": 0.01, "minimum": 0.01, "maximum": 99.99}
EIGHT = {"type": "array", "items": DECIMALS, "minItems": 8, "maxItems": 8}
SIX = {"type": "object", "additionalProperties": {"enum": [1]}, "minProperties": 6, "maxProperties": 6}


def test_decimals_that_are_multiples_are_answers(compiler, model):
    guide = make(schema=EIGHT)
    text = "[0.07, 0.57, 19.99, 0.01, 99.99, 1.1, 2, 3.33]"
    assert accepts(compiler, guide, text)
    assert not guide.problem(text)
    for seed in range(4):
        done = model.generate("Eight prices:", schema=EIGHT, temperature=1, seed=seed, max_tokens=120)
        assert done.finish_reason == "stop"


def test_six_different_keys(model):
    done = model.generate("Count.", schema=SIX, temperature=0, max_tokens=400)
    assert done.finish_reason == "stop"
    assert len(done.parsed) == 6
    assert set(done.parsed.values()) == {1}


def test_an_escaped_key_is_the_key():
    guide = make(schema={"type": "object", "properties": {"a": {"type": "string"}}})
    assert guide.problem(r'{"\u0061": 1}')
    assert guide.problem(r'{"a": "x", "\u0061": "y"}')


def test_gbnf_has_no_lexer(compiler):
    assert accepts(compiler, make(grammar='root ::= word "ing"\nword ::= [a-z]+'), "running")
    assert make(grammar='start: "::="').kind == "lark"


@pytest.mark.parametrize("pattern", ["END$", r"\d{4}-\d{2}-\d{2}"])
def test_an_ending_that_exists_is_found(model, pattern):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}
    for budget in (24, 32):
        done = model.generate("Write.", schema=schema, complete=True, temperature=1, seed=budget, max_tokens=budget)
        assert done.finish_reason == "stop"


@pytest.mark.parametrize("count", [2000, 5000])
def test_thousands_of_choices(compiler, count):
    guide = make(choice=[f"choice number {i}" for i in range(count)])
    compiler.compile(guide)
    assert accepts(compiler, guide, f"choice number {count - 1}")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["integer", "null"], "multipleOf": 5, "minimum": 0, "maximum": 100},
        {"allOf": [{"type": "integer", "multipleOf": 5}, {"minimum": 0, "maximum": 100}]},
    ],
    ids=["types", "allOf"],
)
def test_multiples_with_bounds_in_other_forms(compiler, schema):
    guide = make(schema=schema)
    compiler.compile(guide)
    assert accepts(compiler, guide, "95")
    for text in ("96", "105", "-5"):
        assert not accepts(compiler, guide, text) or guide.problem(text)


def test_a_refusal_names_a_keyword_of_the_schema():
    with pytest.raises(UnsupportedError, match="/properties/a/pattern"):
        make(schema={"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)b"}}})


def test_negative_multiples(compiler):
    guide = make(schema={"type": "integer", "multipleOf": 5})
    assert accepts(compiler, guide, "-10")
    assert not guide.problem("-10")


@pytest.mark.parametrize(
    "schema",
    [
        {"uniqueItems": False}, {"type": "array", "uniqueItems": True, "maxItems": 1}, {"dependencies": {}},
        {"propertyNames": True}, {"if": {"type": "string"}}, {"then": {"type": "string"}}, {"unevaluatedProperties": True},
        {"type": "array", "maxItems": 2.0}, {"$schema": "http://json-schema.org/draft-03/schema#"},
        {"$schema": "http://json-schema.org/draft-04/schema#"}, {"$schema": "http://json-schema.org/draft-06/schema"},
    ],
    ids=str,
)  # fmt: skip
def test_keywords_that_say_nothing(compiler, schema):
    guide = make(schema=schema)
    assert accepts(compiler, guide, "[]")
    assert guide.checked == ()


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("uri", "urn:x:y"), ("uri", "mailto:a@b.c"), ("uri", "http://a.b/c%20d"), ("uri", "file:///etc/hosts"),
        ("email", "user@localhost"),
    ],
)  # fmt: skip
def test_formats_are_as_wide_as_the_rfcs(compiler, form, text):
    for schema in ({"type": "string", "format": form}, {"format": form, "const": text}):
        guide = make(schema=schema)
        assert accepts(compiler, guide, f'"{text}"')
        assert not guide.problem(f'"{text}"')


def test_an_unknown_format_is_an_annotation_unless_it_is_strict(compiler):
    assert accepts(compiler, make(schema={"type": "string", "format": "shoe-size"}), '"x"')
    with pytest.raises(BadInputError, match="shoe-size"):
        make(schema={"type": "string", "format": "shoe-size", "x-guidance": {"strict_formats": True}})


@pytest.mark.parametrize("regex", ["[[:alpha:]]{2}", "[a-z&&[^aeiou]]{2}"])
def test_one_dialect_reads_a_regex(model, regex):
    try:
        guide = make(regex=regex)
    except LlmLabError as error:
        assert regex in str(error)
        return
    for seed in range(3):
        done = model.generate("Letters:", guide=guide, temperature=1.5, seed=seed, max_tokens=20)
        assert done.finish_reason == "stop"
        assert not guide.problem(done.text)


@pytest.mark.parametrize(
    ("regex", "error", "says"),
    [
        ("\ud800", BadInputError, "surrogate"), (r"\ud800", BadInputError, "surrogate"),
        ("(?P<a>x)(?P=a)", UnsupportedError, "back-reference"),
    ],
    ids=["surrogate", "escaped surrogate", "named"],
)  # fmt: skip
def test_a_regex_is_refused_for_its_reason(regex, error, says):
    with pytest.raises(error) as raised:
        make(regex=regex)
    assert says in str(raised.value)


@pytest.mark.parametrize(("regex", "text"), [(r"ab\Z", "ab"), ("a{,3}", "aa"), ("(?#a comment)ab", "ab")])
def test_pythons_own_syntax_is_read(compiler, regex, text):
    assert accepts(compiler, make(regex=regex), text)


def test_unbounded_numbers_end(model):
    schema = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    done = model.generate("Numbers:", schema=schema, temperature=0, max_tokens=300)
    assert done.finish_reason == "stop"
    longest = max(len(str(part)) for part in done.text.strip("[]").split(","))
    assert longest < 60


def test_a_typed_dict_is_a_type():
    pair = typing.TypedDict("pair", {"a": int, "b": str})  # noqa: UP013 - as it was reported
    assert make(schema=pair).parse('{"a":1,"b":"x"}') == {"a": 1, "b": "x"}
