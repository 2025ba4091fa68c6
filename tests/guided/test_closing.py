"""Completing a text within its token budget, and parsing a text that is still being generated."""

import json

import numpy as np
import pytest

from llmlab.guided import make, partial_json
from llmlab.guided.closing import EFFORT, Closer
from llmlab.guided.scan import Scan

SCHEMA = {
    "type": "object",
    "properties": {
        "maybe": {"type": "string"},
        "name": {"type": "string"},
        "born": {"type": "string", "format": "date"},
        "tags": {
            "type": "array",
            "items": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        },
    },
    "required": ["name", "born", "tags"],
    "additionalProperties": False,
}
TEXT = '{"maybe": "a", "name": "Ada \\"L\\"", "born": "1815-12-10", "tags": [{"id": 1}, {"id": 22}]}'


@pytest.mark.parametrize("cut", range(0, len(TEXT), 3))
def test_any_beginning_can_be_closed(compiler, cut):
    guide = make(schema=SCHEMA)
    matcher = compiler.matcher(guide)
    ids = compiler.tokenizer.tokenize_str(TEXT[:cut])
    matcher.consume_tokens(ids)
    begun = compiler.tokenizer.decode_bytes(ids)
    way = Closer(compiler.ranks, guide).way(matcher, 60, begun)
    assert way is not None
    assert way[-1] == compiler.tokenizer.eos_token
    text = compiler.tokenizer.decode_str([*ids, *way[:-1]])
    assert guide.problem(text) == ""
    assert "maybe" not in text[cut + 5 :]


@pytest.mark.parametrize("spare", [0, 1, 5, 20, 150])
def test_a_rambling_model_is_closed_within_its_budget(compiler, spare):
    guide = make(schema=SCHEMA)
    rng = np.random.default_rng(spare)
    matcher, closer = compiler.matcher(guide), Closer(compiler.ranks, guide)
    budget = len(closer.way(compiler.matcher(guide), 100)) + spare
    ids, left, text = [], budget, b""
    while left:
        mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        token = int(rng.choice(np.flatnonzero(mask)))
        instead = closer.instead(matcher, token, left, text)
        if instead is not None:
            ids += instead
            break
        matcher.consume_token(token)
        ids.append(token)
        text += compiler.ranks.pieces[token]
        left -= 1
        if token == compiler.ranks.end:
            break
    assert len(ids) <= budget
    assert guide.problem(compiler.tokenizer.decode_str(ids[:-1])) == ""


@pytest.mark.parametrize("asked", [{"type": int}, {"choice": ["yes", "no"]}, {"grammar": 'start: "(" start? ")"'}])
def test_other_constraints_close_too(compiler, asked):
    guide = make(**asked)
    way = Closer(compiler.ranks, guide).way(compiler.matcher(guide), 8)
    assert compiler.accepts(guide, compiler.tokenizer.decode_str(way[:-1]))


def test_no_ending_within_the_budget(compiler):
    guide = make(schema=SCHEMA)
    assert Closer(compiler.ranks, guide).way(compiler.matcher(guide), 4) is None


NESTED = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string", "pattern": "END$"}}}
NESTED |= {"required": ["a", "b"], "additionalProperties": False}
AWKWARD = {
    "many required keys": {
        "type": "object",
        "properties": {f"key{i}": NESTED for i in range(40)},
        "required": [f"key{i}" for i in range(40)],
    },
    "keys in propertyNames": {
        "patternProperties": {"^[0-9]$": {"type": "array", "minItems": 2}},
        "type": "object",
        "additionalProperties": False,
        "not": {"anyOf": [{"propertyNames": {"not": {"enum": ["1", "3"]}}}, {"propertyNames": {"enum": ["2"]}}]},
    },
    "a date at the end": {"type": "array", "minItems": 12, "items": {"pattern": "^\\d{4}-\\d{2}-\\d{2}$"}},
    "no ending": {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"enum": [{"a": 1}, {"a": 1.0}]}},
}


@pytest.mark.parametrize("schema", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("spare", [0, 9, 70])
def test_a_step_of_the_loop_visits_few_states(compiler, schema, spare):
    guide = make(schema=schema)
    compiler.find_ending(guide)
    known = compiler.ending(guide)
    assert bool(known) is (schema is not AWKWARD["no ending"])
    left = (len(known) or 20) + spare
    rng = np.random.default_rng(spare)
    matcher, closer = compiler.matcher(guide), Closer(compiler.ranks, guide, known)
    ids, text = [], b""
    while left:
        mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        token = int(rng.choice(np.flatnonzero(mask)))
        instead = closer.instead(matcher, token, left, text)
        assert closer.visited <= EFFORT
        ids += instead or [token]
        if instead is not None or token == compiler.ranks.end:
            break
        matcher.consume_token(token)
        text += compiler.ranks.pieces[token]
        left -= 1
    if known and not guide.checked:
        assert ids[-1] == compiler.ranks.end
        assert guide.problem(compiler.tokenizer.decode_str(ids[:-1])) == ""


def test_the_first_ending_is_looked_for_before_the_loop(compiler, monkeypatch):
    schema = AWKWARD["many required keys"]
    guide = make(schema=schema)
    closer = Closer(compiler.ranks, guide)
    assert closer.way(compiler.matcher(guide), 10_000) is not None
    # More than a step in the loop visits: without the known ending, there would be none.
    assert closer.visited > EFFORT
    compiler.find_ending(guide)
    known = compiler.ending(guide)
    token = compiler.tokenizer.tokenize_str("{ ")[0]
    step = compiler.matcher(guide), token, len(known), b""
    assert Closer(compiler.ranks, guide, known).instead(*step) == list(known)
    assert Closer(compiler.ranks, guide).instead(*step) is None
    # It is found once.
    monkeypatch.setattr(Closer, "way", None)
    compiler.find_ending(guide)


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_a_scan_that_goes_on_says_what_a_new_one_says(cut):
    whole, part = Scan(0), Scan(0)
    whole.feed(TEXT[:cut].encode())
    part.feed(TEXT[: cut // 2].encode())
    copied = part.copy()
    copied.feed(TEXT[cut // 2 : cut].encode())
    assert copied.open_string() == whole.open_string()
    assert copied.in_string == whole.in_string
    before = Scan(0)
    before.feed(TEXT[: cut // 2].encode())
    assert part.open_string() == before.open_string()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("{", {}),
        ('{"na', {}),
        ('{"name"', {}),
        ('{"name":', {}),
        ('{"name": "A', {"name": "A"}),
        ('{"name": "A\\', {"name": "A"}),
        ('{"name": "A\\u00', {"name": "A"}),
        ('{"name": "A\\\\', {"name": "A\\"}),
        ('{"name": "A", ', {"name": "A"}),
        ('{"name": "A", "age": 4', {"name": "A"}),
        ('{"name": "A", "age": 42,', {"name": "A", "age": 42}),
        ('{"ok": tru', {}),
        ('{"ok": true', {"ok": True}),
        ("[1, 2", [1]),
        ('[{"a": [1, {"b": "c', [{"a": [1, {"b": "c"}]}]),
        ('{"a": "x}]{", "b": [', {"a": "x}]{", "b": []}),
        ('{"a": ["k", "l', {"a": ["k", "l"]}),
        ('"text', "text"),
        ("12", None),
        ("no json", None),
    ],
)
def test_a_json_text_that_is_still_being_written(text, value):
    assert partial_json(text) == value


def test_it_fills_in_and_never_takes_back():
    whole = json.loads(TEXT)
    for cut in range(1, len(TEXT) + 1):
        seen = partial_json(TEXT[:cut])
        assert isinstance(seen, dict)
        assert list(seen) == list(whole)[: len(seen)]
    assert seen == whole
