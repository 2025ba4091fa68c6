"""Making guides: every kind of constraint, its typed object, and what is refused."""

import dataclasses
import datetime
import decimal
import enum
from typing import Annotated, Literal, Optional, TypedDict

import pytest
from pydantic import BaseModel, Field

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided import make
from llmlab.guided.grammar import unlimited


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0, le=150)]


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Row(TypedDict):
    id: int
    tags: list[str]


class Mood(enum.Enum):
    GOOD = "positive"
    BAD = "negative"


class Unknown:
    pass


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    friend: Optional["Dog"] = None


@pytest.mark.parametrize(
    ("asked", "text", "value"),
    [
        ({"schema": Person}, '{"name": "Ada", "age": 36}', Person(name="Ada", age=36)),
        ({"schema": Point}, '{"x": 1.5}', Point(1.5)),
        ({"schema": Row}, '{"id": 1, "tags": ["a"]}', {"id": 1, "tags": ["a"]}),
        ({"schema": {"type": "integer"}}, "12", 12),
        ({"schema": '{"type": "boolean"}'}, "true", True),
        ({"schema": list[Person]}, '[{"name": "A", "age": 1}]', [Person(name="A", age=1)]),
        (
            {"schema": Annotated[Cat | Dog, Field(discriminator="kind")]},
            '{"kind": "cat", "lives": 9}',
            Cat(kind="cat", lives=9),
        ),
        ({"type": int}, "-12", -12),
        ({"type": float}, "2.5e3", 2500.0),
        ({"type": bool}, "False", False),
        ({"type": str}, '"a\\né"', "a\né"),
        ({"type": datetime.date}, "2024-02-29", datetime.date(2024, 2, 29)),
        ({"type": datetime.time}, "23:59:01", datetime.time(23, 59, 1)),
        ({"type": datetime.datetime}, "2024-02-29T01:02:03", datetime.datetime(2024, 2, 29, 1, 2, 3)),
        ({"type": Literal["a", 2, True]}, "2", 2),
        ({"type": Mood}, "negative", Mood.BAD),
        ({"type": int | None}, "None", None),
        ({"type": int | datetime.date}, "2024-01-31", datetime.date(2024, 1, 31)),
        ({"type": Mood | int}, "7", 7),
        ({"type": list[datetime.date]}, '["2024-01-31"]', [datetime.date(2024, 1, 31)]),
        ({"type": dict[str, int]}, '{"a": 1}', {"a": 1}),
        ({"type": tuple[int, str]}, '[1, "a"]', (1, "a")),
        ({"type": Annotated[int, Field(ge=3)]}, "5", 5),
        ({"type": decimal.Decimal}, "1.5", decimal.Decimal("1.5")),
        ({"regex": r"[A-Z]{2}\d{3}"}, "AB123", "AB123"),
        ({"choice": ["yes", "no", 'né "e"\n']}, 'né "e"\n', 'né "e"\n'),
        ({"choice": [1, 2.5]}, "2.5", 2.5),
        ({"grammar": 'start: "a" | "b"'}, "b", "b"),
        ({"grammar": '?start: x\nx: "a"'}, "a", "a"),
        ({"grammar": 'root ::= item ("," item)*\nitem ::= [a-z]+'}, "ab,c", "ab,c"),
    ],
)
def test_a_text_becomes_its_typed_object(compiler, asked, text, value):
    guide = make(**asked)
    assert compiler.accepts(guide, text)
    matcher = compiler.matcher(guide)
    ids = compiler.tokenizer.tokenize_str(text)
    assert matcher.try_consume_tokens(ids) == len(ids)
    assert matcher.is_accepting()
    parsed = guide.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_outlines_terms_are_types():
    from outlines import types

    guide = make(type=types.sentence if hasattr(types, "sentence") else types.integer)
    assert guide.kind == "regex"
    term = types.dsl.exactly(3, types.digit)
    assert make(type=term).parse("123") == "123"


@pytest.mark.parametrize("text", ["2023-02-29", "0000-01-01", "2024-13-01", "2024-04-31", "1900-02-29"])
def test_days_that_are_not_are_not_dates(compiler, text):
    for asked in ({"type": datetime.date}, {"schema": {"type": "string", "format": "date"}}):
        guide = make(**asked)
        shown = text if "type" in asked else f'"{text}"'
        matcher = compiler.matcher(guide)
        ids = compiler.tokenizer.tokenize_str(shown)
        assert matcher.try_consume_tokens(ids) < len(ids) or not matcher.is_accepting()


def test_equal_constraints_have_equal_digests():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert make(schema=schema).digest == make(schema=dict(schema)).digest
    assert make(regex="a{2}").digest != make(regex="a{3}").digest
    assert make(regex="a{2}").digest != make(grammar='start: "aa"').digest
    assert make() is None


BAD = [
    ({"schema": {"type": "strin"}}, BadInputError, "/type"),
    ({"schema": {"properties": {"a": {"minLength": -1}}}}, BadInputError, "/properties/a/minLength"),
    ({"schema": {"properties": {"a/b": {"type": ["integer", 3]}}}}, BadInputError, "/properties/a/b/type"),
    ({"schema": "{"}, BadInputError, "isn't valid JSON"),
    ({"schema": {"type": "string", "minLength": 5, "maxLength": 2}}, BadInputError, "No text satisfies the schema at the top"),
    ({"schema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3}}, "required": ["a"]}},
     BadInputError, "No text satisfies the schema at /properties/a: minimum (5)"),
    ({"schema": {"enum": []}}, BadInputError, "enum"),
    ({"schema": False}, BadInputError, "No text satisfies"),
    ({"schema": {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
      "required": ["n"]}}}}, BadInputError, "without end"),
    ({"schema": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}, BadInputError, "without end"),
    ({"schema": {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}}},
     BadInputError, "refers directly back to itself"),
    ({"schema": {"properties": {"a": {"$ref": "#/nowhere"}}}}, BadInputError, "/properties/a/$ref"),
    ({"schema": {"$schema": "http://example.com/mine"}}, BadInputError, "/$schema"),
    ({"schema": {"pattern": "("}}, BadInputError, "/pattern"),
    ({"schema": {"const": {1, 2}}}, BadInputError, "JSON"),
    ({"schema": 3}, BadInputError, "dict"),
    ({"schema": Point(1, 2)}, BadInputError, "class"),
    ({"schema": {"$ref": "https://example.com/x.json"}}, UnsupportedError, "aren't fetched"),
    ({"schema": {"items": {"pattern": "(?=a)b"}}}, UnsupportedError, "'pattern' at /items/pattern"),
    ({"schema": {"properties": {"a": {"format": "dat"}}, "x-guidance": {"strict_formats": True}}}, BadInputError,
     "'dat' at /properties/a/format"),
    ({"schema": {"$id": "http://x/y", "items": {"$ref": "z.json"}}}, UnsupportedError, "aren't fetched"),
    ({"regex": "[[:alpha:]]{2}"}, BadInputError, "dialects"),
    ({"regex": "[a-z&&[^aeiou]]{2}"}, BadInputError, "dialects"),
    ({"regex": r"\ud800"}, BadInputError, "lone surrogate"),
    ({"regex": "\ud800"}, BadInputError, "lone surrogate"),
    ({"regex": r"(?P<a>x)(?P=a)"}, UnsupportedError, "back-references"),
    ({"choice": ["\ud800"]}, BadInputError, "lone surrogate"),
    ({"grammar": "\ud800"}, BadInputError, "lone surrogate"),
    ({"type": 3}, BadInputError, "Python type"),
    ({"type": enum.Enum("Empty", [])}, BadInputError, "no members"),
    ({"type": Unknown}, BadInputError, "can't be written as JSON"),
    ({"regex": "("}, BadInputError, "isn't a valid regex"),
    ({"regex": ""}, BadInputError, "empty"),
    ({"regex": "[a-z]+"}, BadInputError, "unbounded"),
    ({"regex": "a{2,}"}, BadInputError, "unbounded"),
    ({"regex": r"(a)\1"}, UnsupportedError, "back"),
    ({"regex": "(?=a)b"}, UnsupportedError, "look"),
    ({"regex": r"[^\s\S]"}, BadInputError, "No text matches"),
    ({"regex": 3}, BadInputError, "must be text"),
    ({"choice": []}, BadInputError, "empty"),
    ({"choice": 5}, BadInputError, "list of texts"),
    ({"choice": ["a", ""]}, BadInputError, "empty"),
    ({"choice": ["a", "a"]}, BadInputError, "repeated"),
    ({"choice": "yes"}, BadInputError, "list"),
    ({"choice": [None]}, BadInputError, "text or a number"),
    ({"grammar": ""}, BadInputError, "empty"),
    ({"grammar": 'begin: "a"'}, BadInputError, "`start`"),
    ({"grammar": 'item ::= "a"'}, BadInputError, "`root`"),
    ({"grammar": "start: nothing"}, BadInputError, "nothing"),
    ({"grammar": 'root ::= "a" | nothing'}, BadInputError, "nothing"),
    ({"grammar": 'start: "a'}, BadInputError, "is invalid"),
    ({"schema": Person, "type": int}, BadInputError, "schema and type"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "error", "says"), BAD, ids=[str(asked)[:70] for asked, _, _ in BAD])
def test_what_cannot_be_is_refused_in_one_line(asked, error, says):
    with pytest.raises(BadInputError) as raised:
        make(**asked)
    assert type(raised.value) is error
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_limit_makes_an_unbounded_regex_good():
    assert make(regex="[a-z]+", bounded=False).kind == "regex"
    assert unlimited(r"a\+[+*]{2}b?\{2,\}") == ""
    assert unlimited("a{1,3}?b++") == "+"
    assert unlimited("[]*]x*") == "*"


def test_unknown_formats_and_keywords_say_nothing():
    guide = make(schema={"type": "object", "properties": {"id": {"type": "integer", "format": "int64", "x-order": 3}}})
    assert guide.parse('{"id": 3}') == {"id": 3}


def test_extra_properties_are_only_for_schemas_that_leave_them_open(compiler):
    text = '{"name": "Ada", "age": 3, "more": 1}'
    ids = compiler.tokenizer.tokenize_str(text)
    assert compiler.matcher(make(schema=Person)).try_consume_tokens(ids) < len(ids)
    open_schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    assert compiler.matcher(make(schema=open_schema)).try_consume_tokens(ids) == len(ids)


def test_what_takes_too_long_is_refused(compiler):
    from llmlab.guided.compiler import Compiler

    slow = Compiler(lambda: compiler.tokenizer, limit_s=0.0)
    with pytest.raises(BadInputError, match="did not compile"):
        slow.compile(make(schema={"enum": [f"value {i}" for i in range(2000)]}))


def test_compiled_once(compiler):
    guide = make(regex="[a-f]{5}x")
    assert compiler.compile(guide) > 0
    assert compiler.compile(make(regex="[a-f]{5}x")) == 0


def test_a_vocabulary_that_the_library_panics_over():
    """A token of more than 1,024 bytes; the panic is a BaseException, which would pass through everything."""
    from llguidance import LLTokenizer

    from llmlab.guided.compiler import Compiler, Vocabulary

    tokens = [*(bytes([i]) for i in range(256)), b"x" * 3000, b"\xff<end>"]
    compiler = Compiler(lambda: LLTokenizer(Vocabulary(tokens, [257], [257], lambda text: list(text.encode()))))
    with pytest.raises(UnsupportedError, match="vocabulary"):
        _ = compiler.tokenizer
