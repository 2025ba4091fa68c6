"""Texts that violate what the masks can't see: stopped at the token, or taken back and generated again."""

import re

import pytest

from llmlab.errors import BadInputError
from llmlab.guided import make
from llmlab.guided.endings import Shape
from llmlab.guided.pyregex import tree
from llmlab.guided.retreat import _span
from llmlab.guided.scan import Scan, digit_limit

FAULTS = [
    ('{"a": 1, "b', 'b"', ""), ('{"a": 1, "', 'a"', "key"), ('{"a": 1', ', "a": 2', "key"), ('[{"a": 1}, {"', 'a"', ""),
    ('{"x": {"a": 1}, "', 'a"', ""), ('{"', "\\u00", "escape"), ('{"a": "', "\\u00", ""), ('{"a": "b\\"', '", "b"', ""),
    ("[" + "1" * 24, "1", "digits"), ("[" + "1" * 24, ",", ""), ("[" + "1" * 20 + ".1", "234", ""), ('["' + "1" * 30, "1", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "piece", "fault"), FAULTS)
def test_a_scan_sees_what_the_masks_do_not(text, piece, fault):
    scan = Scan(24)
    scan.feed(text.encode())
    for _ in range(2):  # looking changes nothing
        assert scan.fault(piece.encode()) == fault


def test_the_schema_sets_the_most_digits():
    assert digit_limit({"x-guidance": {"max_digits": 0}}) == 0
    assert digit_limit({"const": 1e30}) > 50
    assert make(schema={"x-guidance": {"max_digits": 0}}).max_digits == 0


@pytest.mark.parametrize(
    ("path", "found"),
    [((), '{"a": [1, {"b": "x"}], "c": 2}'), (("a", 1), '{"b": "x"}'), (("a", 1, "b"), '"x"'), (("c",), "2")],
)
def test_the_place_of_a_path_in_a_text(path, found):
    text = '{"a": [1, {"b": "x"}], "c": 2}'
    start, end = _span(text, path)
    assert text[start:end] == found


@pytest.mark.parametrize(
    ("pattern", "begun", "end"),
    [
        ("(ab|c)*d{2,3}", "ab", "dd"),
        ("[a-z]{3,40}END[0-9]{4}", "abcEND1", "000"),
        (".{2}x?", "a", None),
        ("a", "b", "-"),
    ],
)
def test_the_shortest_ending_is_exact(pattern, begun, end):
    shape = Shape(tree(pattern))
    found = shape.ending(begun)
    if end == "-":
        assert found is None
    else:
        assert re.fullmatch(pattern, begun + found)
        assert end is None or found == end


UNIQUE = {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "uniqueItems": True, "minItems": 3}
KEYS = {
    "type": "object", "patternProperties": {"^[ab]{1,2}$": {"enum": [1]}}, "additionalProperties": False, "minProperties": 5,
    "maxProperties": 5,
}  # fmt: skip
ODD = {"type": "integer", "not": {"multipleOf": 2}, "minimum": 0, "maximum": 99}


@pytest.mark.parametrize("schema", [UNIQUE, KEYS, ODD], ids=["unique items", "keys", "not"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_text_is_taken_back_until_it_is_valid(model, schema, temperature):
    done = model.generate("Give me some JSON.", schema=schema, temperature=temperature, seed=2, max_tokens=300)
    assert done.finish_reason == "stop"
    assert make(schema=schema).problem(done.text) == ""
    assert len(done.guidance.steps) == len(done.token_ids)
    assert done.guidance.checked


def test_the_probability_of_each_option(model):
    choice = ["yes", "no", "no way"]
    done = model.generate("Is 3 odd?", choice=choice, temperature=0, probabilities=True)
    found = done.probabilities
    assert list(found) == choice
    assert sum(found.values()) == pytest.approx(1)
    assert sum(found.raw.values()) + found.outside == pytest.approx(1)
    assert sum(found.by_length.values()) == pytest.approx(1)
    frame = model.generate(["Is 3 odd?", "Hello!"], choice=choice[:2], probabilities=True).frame
    assert list(frame["label"]) == ["no", "no"]
    with pytest.raises(BadInputError, match="needs a choice"):
        model.generate("x", type=int, probabilities=True)
