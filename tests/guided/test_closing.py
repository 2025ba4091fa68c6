"""Closing a text within its budget, and seeing a text that is still being written."""

import json

import numpy as np
import pytest

from llmlab.guided import make, partial_json
from llmlab.guided.closing import Closer

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
def test_a_rambling_model_is_brought_to_an_end_in_time(compiler, spare):
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


def test_no_way_within_the_budget(compiler):
    guide = make(schema=SCHEMA)
    assert Closer(compiler.ranks, guide).way(compiler.matcher(guide), 4) is None


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
