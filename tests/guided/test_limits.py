"""Values of a type are limited, so that a confused model ends: digits, characters, items."""

import json
from typing import Annotated

import pydantic
import pytest

from llmlab.guided import make, unbounded
from llmlab.guided.pytypes import MAX_DIGITS, MAX_ITEMS, MAX_LENGTH


def allows(compiler, guide, text):
    matcher = compiler.matcher(guide)
    ids = compiler.tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


@pytest.fixture(scope="module")
def compiler():
    from llguidance import LLTokenizer

    from llmlab.guided.compiler import Compiler, Vocabulary

    return Compiler(lambda: LLTokenizer(Vocabulary([bytes([i]) for i in range(256)], (), (256,)), slices=[]))


@pytest.mark.parametrize(("kind", "fits", "too_much"), [
    (int, "9" * MAX_DIGITS, "9" * (MAX_DIGITS + 1)),
    (float, "-0." + "1" * MAX_DIGITS, "0." + "1" * (MAX_DIGITS + 1)),
    (int | None, "1" * MAX_DIGITS, "1" * (MAX_DIGITS + 1)),
    (str, json.dumps("x" * MAX_LENGTH), json.dumps("x" * (MAX_LENGTH + 1))),
    (list[str], json.dumps(["x" * MAX_LENGTH, ""]), json.dumps(["x" * (MAX_LENGTH + 1)])),
    (list[int], json.dumps([1] * MAX_ITEMS), json.dumps([1] * (MAX_ITEMS + 1))),
    (dict[str, list[int]], json.dumps({"a": [1] * MAX_ITEMS}), json.dumps({"a": [1] * (MAX_ITEMS + 1)})),
    (Annotated[list[str], pydantic.Field(max_length=2)], '["a","b"]', '["a","b","c"]'),
    (Annotated[list[int], pydantic.Field(min_length=MAX_ITEMS + 1)], json.dumps([1] * (MAX_ITEMS + 1)), "[1]"),
], ids=str)  # fmt: skip
def test_a_value_ends_at_its_limit_unless_that_is_lifted(compiler, kind, fits, too_much):
    limited = make(type=kind)
    assert allows(compiler, limited, fits)
    assert not allows(compiler, limited, too_much)
    assert limited.parse(fits) is not None
    if "Annotated" not in str(kind):
        free = make(type=unbounded(kind))
        assert allows(compiler, free, too_much)
        assert free.parse(too_much) is not None
        assert free.name == limited.name


def test_a_schema_is_followed_as_written(compiler):
    assert allows(compiler, make(schema={"type": "string"}), json.dumps("x" * (MAX_LENGTH + 1)))


def test_a_list_of_texts_ends_by_itself_on_both_engines(model):
    kind = Annotated[list[Annotated[str, pydantic.Field(max_length=8)]], pydantic.Field(max_length=3)]
    done = model.generate("Name colors.", type=kind, temperature=1.5, seed=1, max_tokens=120)
    assert done.finish_reason == "stop"
    assert len(done.parsed) <= 3
