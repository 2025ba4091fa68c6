"""Bounds: every keyword at every spelling of zero, and at the limits of floats and int64."""

import itertools
import json
import math
import random

import jsonschema
import pytest

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided import make
from tests.guided.walker import accepts, walk

# As JSON text, because -0 becomes 0 once Python has read it.
ZEROS = ["0", "0.0", "-0", "-0.0", "0e0", "0E-3"]
NUMBERS = ["0", "1", "-1", "0.5", "-0.5", "0.001", "-0.001", "2", "100", "-100"]


def valid(schema, text):
    return jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))


@pytest.mark.parametrize("kind", ["integer", "number", ["integer", "null"], None])
@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
@pytest.mark.parametrize("zero", ZEROS)
def test_a_bound_of_zero_holds(compiler, keyword, zero, kind):
    other = {"minimum": "maximum", "exclusiveMinimum": "exclusiveMaximum"}
    for more in ({}, {other.get(keyword, "minimum"): 2 if keyword in other else -2}):
        schema = {keyword: json.loads(zero), **({"type": kind} if kind else {"type": "number"}), **more}
        guide = make(schema=schema)
        for text in NUMBERS:
            expected = valid(schema, text)
            assert accepts(compiler, guide, text) is expected, (schema, text)
            assert (guide.problem(text) == "") is expected
        for seed in range(3):
            text = walk(compiler, guide, seed, 40)
            assert text is None or valid(schema, text), (schema, text)


def test_open_bounds_of_zero_and_one_exclude_both(compiler):
    guide = make(schema={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
    for text in ("0", "0.0", "-0", "1", "1.0", "-1"):
        assert not accepts(compiler, guide, text)
    for text in ("0.5", "0.000001", "0.999999"):
        assert accepts(compiler, guide, text)


COUNTS = [
    ("minLength", {"type": "string"}, '""', '"a"'), ("maxLength", {"type": "string"}, '""', '"a"'),
    ("minItems", {"type": "array"}, "[]", "[1]"), ("maxItems", {"type": "array"}, "[]", "[1]"),
    ("minProperties", {"type": "object"}, "{}", '{"a": 1}'), ("maxProperties", {"type": "object"}, "{}", '{"a": 1}'),
]  # fmt: skip


@pytest.mark.parametrize(("keyword", "schema", "none", "one"), COUNTS)
@pytest.mark.parametrize("count", [*ZEROS, "1", "1.0"])
def test_a_count_of_zero_holds(compiler, keyword, schema, none, one, count):
    schema = {**schema, keyword: json.loads(count)}
    guide = make(schema=schema)
    for text in (none, one):
        assert accepts(compiler, guide, text) is valid(schema, text)
        assert (guide.problem(text) == "") is valid(schema, text)


@pytest.mark.parametrize("zero", ZEROS)
def test_multiples_of_zero_are_refused_by_name(zero):
    with pytest.raises(BadInputError, match="/multipleOf"):
        make(schema={"type": "number", "multipleOf": json.loads(zero)})


EDGES = [2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1024, 2**63 - 1, 2**63, 2**64, 10**30]


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_large_bounds_hold_or_are_refused_by_their_keyword(compiler, keyword, kind):
    near = [edge + step for edge in EDGES for step in (-2048, -1, 0, 1, 2048)]
    texts = [str(value) for value in (*near, *(-value for value in near), 0)]
    made = []
    for bound in (*EDGES, *(-edge for edge in EDGES)):
        schema = {"type": kind, keyword: bound}
        try:
            guide = make(schema=schema)
        except UnsupportedError as error:
            assert f"'{keyword}' at /{keyword}" in str(error)
            assert abs(bound) > (10**18 if kind == "integer" else 2**53 - 2)
            continue
        made.append(bound)
        for text in texts:
            if accepts(compiler, guide, text):
                assert valid(schema, text), (schema, text)
        inside = bound + (abs(bound) // 10**6) * (-1 if "aximum" in keyword else 1)
        assert accepts(compiler, guide, str(inside)) or abs(inside) > (2**63 - 1024 if kind == "integer" else 2**53)
    assert len(made) >= 11, made


def test_the_bounds_of_an_int64_work(compiler):
    guide = make(schema={"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1})
    assert all(accepts(compiler, guide, text) for text in ("0", "-1", "9223372036854775807", "-9223372036854774784"))
    assert not accepts(compiler, guide, "9223372036854775808")
    assert not accepts(compiler, guide, "-9223372036854775809")


def test_open_bounds_may_be_near_each_other(compiler):
    guide = make(schema={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-7})
    assert accepts(compiler, guide, "0.00000005")
    with pytest.raises(UnsupportedError, match="'exclusiveMinimum' at /exclusiveMinimum"):
        make(schema={"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": math.nextafter(1, 2)})


def test_random_bounds_admit_nothing_outside_them(compiler):
    rng = random.Random(8)
    ended = 0
    for number in range(120):
        low = rng.choice([0, 0.0, -0.0, rng.uniform(-10, 10), rng.randint(-50, 50), rng.uniform(-1, 1) * 10**-6])
        high = rng.choice([0, -0.0, low + rng.random() * 10 ** rng.randint(-6, 3), low + rng.randint(0, 9)])
        schema = {"type": rng.choice(["integer", "number"]), rng.choice(["minimum", "exclusiveMinimum"]): low,
                  rng.choice(["maximum", "exclusiveMaximum"]): high}  # fmt: skip
        try:
            guide = make(schema=schema)
        except BadInputError as error:
            assert any(f"/{key}" in str(error) or "No text satisfies" in str(error) for key in schema)
            continue
        text = walk(compiler, guide, number, 60)
        if text is not None:
            assert valid(schema, text), (schema, text)
            ended += 1
    assert ended > 30


@pytest.mark.parametrize(
    "value", [-(2**63), 1 - 2**63, 2**53 + 1, 2**63, 10**400, 1e300, 123456789.12345679, [{"a": -(2**63)}]]
)
@pytest.mark.parametrize("keyword", ["const", "enum"])
def test_constants_that_a_float_cannot_hold_are_refused(keyword, value):
    # -2**63 would crash the process.
    with pytest.raises(UnsupportedError, match=f"'{keyword}' at /properties/n/{keyword}"):
        make(schema={"properties": {"n": {keyword: value if keyword == "const" else [1, value]}}})


@pytest.mark.parametrize("value", [0, -0.0, 0.1, -1.5, 1e-7, 2**53, -(2**62), 2**63 - 1024, 10**22, 0.1234567890123456])
def test_constants_that_a_float_holds_are_written(compiler, value):
    guide = make(schema={"const": value})
    text = next(text for seed in range(5) if (text := walk(compiler, guide, seed, 60)) is not None)
    assert guide.problem(text) == ""


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "minItems": 2**40}, "'minItems' at /minItems"),
        ({"type": "string", "minLength": 2**63}, "'minLength' at /minLength"),
        ({"type": "object", "minProperties": 1e300}, "'minProperties' at /minProperties"),
    ],
)
def test_counts_that_no_text_reaches_are_refused(schema, says):
    with pytest.raises(UnsupportedError, match=says):
        make(schema=schema)


def test_upper_counts_that_no_text_reaches_cost_nothing(compiler):
    for schema, text in itertools.product(
        ({"maxItems": 2**40}, {"maxLength": 2**63}, {"maxProperties": 1e18}), ('"a"', "[1]")
    ):
        assert accepts(compiler, make(schema=schema), text)


def test_multiples_of_decimals_are_exact(compiler):
    guide = make(schema={"type": "number", "multipleOf": 0.01, "minimum": 0.01, "maximum": 99.99})
    for text in ("0.07", "0.57", "19.99", "4.35", "99.99", "1", "1.10"):
        assert guide.problem(text) == ""
        assert accepts(compiler, guide, text) or text == "1.10"
    for text in ("0.071", "0.005", "19.999"):
        assert "not a multiple of 0.01" in guide.problem(text) or "less than" in guide.problem(text)
        assert "Decimal" not in guide.problem(text)
        assert not accepts(compiler, guide, text)
    numbers = {"type": "number", "multipleOf": 0.01, "minimum": 0.01, "maximum": 99.99}
    guide = make(schema={"type": "array", "items": numbers, "minItems": 8, "maxItems": 8})
    texts = [text for seed in range(30) if (text := walk(compiler, guide, seed, 120)) is not None]
    assert len(texts) > 10
    assert [guide.problem(text) for text in texts] == [""] * len(texts)


@pytest.mark.parametrize(
    ("schema", "text", "good"),
    [
        ({"type": "integer"}, "3.0", True),
        ({"enum": [0.1, 1.0]}, "0.10", True),
        ({"const": 1}, "1.0", True),
        ({"type": "number", "maximum": 0.3}, "0.30000000000000001", False),
        ({"type": "number", "multipleOf": 0.01}, "1e999999", False),
        ({"type": "number", "multipleOf": 0.01}, "1e300", True),
        ({"type": "number", "minimum": 0.5}, f"{'9' * 60}.{'1' * 60}", True),
        ({"type": "integer"}, f"{'9' * 60}.000", True),
        ({"type": "number"}, "-0.0", True),
        ({"type": "number"}, f"1.5e{'9' * 20}", True),
        ({"type": "number", "maximum": 5}, f"1e{'9' * 20}", False),
        ({"type": "number", "minimum": 0, "maximum": 5}, f"1e-{'9' * 20}", True),
    ],
)
def test_the_validator_reads_numbers_as_written(schema, text, good):
    assert (make(schema=schema).problem(text) == "") is good


# schema, texts that masks and validator accept, texts that one of them rejects
MULTIPLES = [
    ({"type": "number", "multipleOf": 0.01}, ["-500.25", "2.5", "0", "-0.01"], ["-0.001", "-1.005", "1.005"]),
    ({"type": ["number", "null"], "multipleOf": 0.5}, ["null", "-1.5", "-500.5"], ["-11.3"]),
    ({"type": "number", "multipleOf": 0.01, "example": 1, "format": "double"}, ["-500.25"], ["-1.005"]),
    ({"type": "integer", "multipleOf": 5}, ["-10", "-20000", "15"], ["-3", "-20001", "3"]),
    ({"type": "integer", "multipleOf": 5, "minimum": -100}, ["-100", "-5", "0"], ["-105", "-3"]),
    ({"type": "integer", "multipleOf": 5, "maximum": -100}, ["-100", "-500005"], ["-103", "-95", "5"]),
    ({"multipleOf": 5, "maximum": -100}, ["-500005", '"text"', "null"], ["-103", "5"]),
    ({"type": "number", "multipleOf": 0.5, "exclusiveMaximum": 0}, ["-0.5", "-100.5"], ["-0.3", "0", "0.5"]),
    ({"type": "number", "multipleOf": 0.5, "minimum": -2.5, "maximum": -0.5}, ["-2.5", "-1"], ["-3", "-0.7", "0"]),
    # Spellings that the mask library leaves out.
    ({"type": "number", "multipleOf": 0.25, "minimum": 0}, ["75.0", "2.5", "2.50", "0.25"], ["2.3", "-1"]),
    ({"type": "number", "multipleOf": 0.75, "minimum": 0}, ["1.5", "3.0", "2.25"], ["0.5", "2.0"]),
    ({"type": "number", "minimum": 0, "exclusiveMaximum": 100}, ["99.9", "99.99", "0"], ["100", "100.1", "-1"]),
    ({"type": "number", "minimum": -99.99, "maximum": 99.99}, ["99.9", "-99.9", "99.99"], ["99.995", "-100"]),
    ({"type": "number", "minimum": 0.001, "maximum": 0.05}, ["0.05", "0.001"], ["0", "0.0", "0.00"]),
    ({"type": "number", "multipleOf": 0.02, "minimum": 0, "maximum": 9.94}, ["9.9", "9.8"], ["9.95", "9.91"]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), MULTIPLES, ids=str)
def test_multiples_of_both_signs_and_in_each_spelling(compiler, schema, good, bad):
    guide = make(schema=schema)
    for text in good:
        assert accepts(compiler, guide, text), text
        assert not guide.problem(text)
    for text in bad:
        assert not accepts(compiler, guide, text) or ("/multipleOf" in guide.checked and guide.problem(text)), text


def test_a_negative_multiple_is_generated_on_both_engines(model):
    schema = {"type": "integer", "multipleOf": 7, "maximum": -3000}
    for seed in range(3):
        done = model.generate("A number:", schema=schema, temperature=1, seed=seed, max_tokens=40)
        assert done.finish_reason == "stop"
        assert done.parsed % 7 == 0


def test_formats_are_checked_in_every_draft():
    guide = make(schema={"$schema": "http://json-schema.org/draft-06/schema#", "format": "duration"})
    assert guide.problem('"abc"')
    assert not guide.problem('"P1D"')
    # Draft 3 had another meaning of "time".
    for draft in ("draft-04", "draft-06", "draft-07"):
        guide = make(schema={"$schema": f"http://json-schema.org/{draft}/schema#", "format": "time"})
        assert not guide.problem('"12:00:00Z"')
        assert guide.problem('"12"')
