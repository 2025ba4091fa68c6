"""Keywords beyond the masks: rewritten exactly, or checked when a text ends. No model is needed."""

import itertools
import json
import random

import jsonschema
import pytest

from llmlab.errors import UnsupportedError
from llmlab.guided import make
from llmlab.guided.ecma import with_patterns
from llmlab.guided.relaxation import relaxed
from llmlab.guided.walk import change
from tests.guided.walker import accepts

A, B = {"required": ["a"]}, {"required": ["b"]}
TWO = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "additionalProperties": False,
}
# Enforced by the masks alone: (schema, valid, invalid).
MASKED = [
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", '"x"'], ["null"]),
    ({**TWO, "oneOf": [A, B]}, ['{"a": 1}', '{"b": 1}'], ["{}", '{"a": 1, "b": 1}']),
    ({**TWO, "dependentRequired": {"a": ["b"]}}, ["{}", '{"b": 1}', '{"a": 1, "b": 1}'], ['{"a": 1}']),
    ({**TWO, "$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}}, ['{"b": 1}', '{"a": 1, "b": 1}'], ['{"a": 1}']),
    ({**TWO, "if": A, "then": B}, ["{}", '{"a": 1, "b": 1}'], ['{"a": 1}']),
    ({**TWO, "not": B}, ["{}", '{"a": 1}'], ['{"b": 1}']),
    ({"not": {"type": "null"}}, ["1", "{}"], ["null"]),
    ({"type": "string", "not": {"enum": ["no", "never"]}}, ['"nope"', '""', '"neve"'], ['"no"', '"never"']),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, ['{"ab": 1}'], ['{"b": 1}']),
    ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, ['{"b": 1}'], ['{"c": 1}']),
    ({"type": "object", "propertyNames": False}, ["{}"], ['{"c": 1}']),
    ({**TWO, "minProperties": 1}, ['{"a": 1}'], ["{}"]),
    ({**TWO, "maxProperties": 1}, ['{"a": 1}'], ['{"a": 1, "b": 2}']),
    ({"properties": {"a": True}, "unevaluatedProperties": False, "type": "object"}, ['{"a": 1}'], ['{"b": 1}']),
]  # fmt: skip
# Let through by the masks, refused by the check: (schema, valid, invalid, keyword).
CHECKED = [
    ({"type": "array", "uniqueItems": True}, ["[1, 2]"], ["[1, 1]", "[1, 1.0]"], "/uniqueItems"),
    ({"type": "array", "contains": {"const": 3}}, ["[1, 3]"], ["[1]"], "/contains"),
    ({"oneOf": [{"multipleOf": 3}, {"multipleOf": 5}], "type": "integer"}, ["3", "10"], ["15"], "/oneOf"),
    ({"type": "integer", "not": {"multipleOf": 2}}, ["3"], ["4"], "/not"),
    ({"properties": {"a": {"format": "regex", "type": "string"}}}, ['{"a": "b"}'], ['{"a": "("}'], "/properties/a/format"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "valid", "invalid"), MASKED, ids=str)
def test_some_are_rewritten_exactly(compiler, schema, valid, invalid):
    guide = make(schema=schema)
    assert guide.checked == ()
    for text in valid:
        assert accepts(compiler, guide, text)
        assert not guide.problem(text)
    for text in invalid:
        assert not accepts(compiler, guide, text)
        assert guide.problem(text)


@pytest.mark.parametrize(("schema", "valid", "invalid", "keyword"), CHECKED, ids=str)
def test_others_are_checked_when_the_text_ends(compiler, schema, valid, invalid, keyword):
    guide = make(schema=schema)
    assert guide.checked == (keyword,)
    for text in valid:
        assert accepts(compiler, guide, text)
        assert not guide.problem(text)
    for text in invalid:
        assert guide.problem(text)


LEAVES = [
    {"type": "integer"}, {"type": "string"}, {"enum": [1, "a", None]}, {"const": "a"}, {"minimum": 3}, {"required": ["a"]},
    {"properties": {"a": {"type": "null"}}}, {"properties": {"a": False}}, {"maxItems": 1}, {"minLength": 2}, True,
    {"type": ["array", "null"]}, {"properties": {"b": {"const": 1}}, "required": ["b"]}, {"uniqueItems": True},
]  # fmt: skip
VALUES = [1, 5, "a", "ab", None, True, [], [1], [1, 1], {}, {"a": 1}, {"a": None}, {"b": 1}, {"a": None, "b": 1}, 2.5]


def random_schema(rng, depth):
    if depth == 0:
        return rng.choice(LEAVES)
    kind = rng.choice(["oneOf", "anyOf", "allOf", "not", "if", "dependentSchemas", "leaf", "properties", "contains"])
    inner = [random_schema(rng, depth - 1) for _ in range(3)]
    if kind in ("oneOf", "anyOf", "allOf"):
        return {kind: inner[: rng.choice([2, 3])]}
    return {
        "not": {"not": inner[0]},
        "if": {"if": inner[0], "then": inner[1], "else": inner[2]},
        "dependentSchemas": {"dependentSchemas": {"a": inner[0]}},
        "leaf": inner[0],
        "properties": {"properties": {"a": inner[0]}},
        "contains": {"contains": inner[0]},
    }[kind]


def test_a_rewritten_schema_accepts_what_the_schema_accepts():
    rng = random.Random(17)
    exact = 0
    for _ in range(600):
        schema = random_schema(rng, rng.choice([1, 2, 3]))
        looser, checked = relaxed(schema)
        looser = change(looser, lambda node: with_patterns(node, 1, {}))
        before, after = jsonschema.Draft202012Validator(schema), jsonschema.Draft202012Validator(looser)
        for value in VALUES:
            if before.is_valid(value):
                assert after.is_valid(value), (schema, looser, value)
            elif not checked:
                assert not after.is_valid(value), (schema, looser, value)
        exact += not checked
    assert exact > 200


def test_nothing_is_fetched(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("it fetched"))
    with pytest.raises(UnsupportedError):
        make(schema={"$defs": {"a": {"x": {"$ref": "http://localhost:1/x"}}}, "$ref": "#/$defs/a/x"})


@pytest.mark.parametrize("form", ["uri", "uri-reference", "email", "iri"])
def test_formats_follow_the_rfcs(compiler, form):
    good = {
        "uri": ["urn:x:y", "mailto:a@b.c", "http://x/%20a", "file:///etc/x", "HTTP://EX.com", "http://[::1]:80/?a=b#c"],
        "uri-reference": ["/a", "a/b#c", "?q", ""],
        "email": ["user@localhost", "a.b+c@x.org", "!#$@e.co"],
        "iri": ["http://é/ü"],
    }
    bad = {
        "uri": ["x", "//a", "http://a b", "http://a/%zz"], "uri-reference": ["\\\\x", "%"], "email": ["a", "a@", ".a@b.c"],
        "iri": ["é"],
    }  # fmt: skip
    guide = make(schema={"type": "string", "format": form})
    for text, valid in itertools.chain(((t, True) for t in good[form]), ((t, False) for t in bad[form])):
        assert accepts(compiler, guide, json.dumps(text, ensure_ascii=False)) is valid, text
    if form != "uri-reference":
        assert make(schema={"format": form, "const": good[form][0]}).checked == ()


def test_ten_thousand_choices_are_one_terminal(compiler):
    guide = make(choice=[f"item {i}" for i in range(10_000)])
    assert accepts(compiler, guide, "item 9999")
    assert not accepts(compiler, guide, "item 10000")


GRAMMARS = [
    ('start: "::=" WORD\nWORD: /[a-z]{1,4}/', "lark", "::=ab"), ('// a ::= b\nstart: "a"', "lark", "a"),
    ('\ufeffroot ::= "a" | "b"', "gbnf", "a"), ('\ufeffstart: "a"', "lark", "a"), ('root ::= [a-z]+ "ing"', "gbnf", "running"),
    ('# start: x\nroot ::= "a:" b\nb ::= "c"', "gbnf", "a:c"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "good"), GRAMMARS, ids=str)
def test_the_kind_of_a_grammar_is_told_by_its_structure(compiler, text, kind, good):
    guide = make(grammar=text)
    assert guide.kind == kind
    assert accepts(compiler, guide, good)
