"""Functions as tools: schemas, docstrings, argument validation, and what can't be a tool."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
from typing import Annotated, Literal, Optional, Union

import jsonschema
import pytest
from pydantic import BaseModel, Field

from llmlab.errors import BadInputError, UnknownNameError
from llmlab.tool_calls import Tool, Toolbox, read_docstring


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Person(BaseModel):
    name: str
    title: str = "Dr"


def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    Args:
        a: the first
            number
        b (int): the second.

    Returns:
        int: the sum
    """
    return a + b


def test_a_function_becomes_an_openai_schema():
    assert Tool.of(add).schema == {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "description": "the first number"},
                    "b": {"type": "integer", "description": "the second.", "default": 2},
                },
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    }


HINTS = [
    (str, {"type": "string"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (Literal["x", "y"], {"enum": ["x", "y"], "type": "string"}),
    (dt.date, {"type": "string", "format": "date"}),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
    (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
    (Annotated[int, Field(ge=1, description="some")], {"type": "integer", "minimum": 1, "description": "some"}),
    (Unit, {"$ref": "#/$defs/Unit"}),
    (Point, {"$ref": "#/$defs/Point"}),
    (Person, {"$ref": "#/$defs/Person"}),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "schema"), HINTS, ids=str)
def test_type_hints_become_json_schemas(hint, schema):
    def f(value):
        pass

    f.__annotations__ = {"value": hint}
    parameters = Tool.of(f).parameters
    assert parameters["properties"]["value"] == schema
    jsonschema.Draft202012Validator.check_schema(parameters)


def test_a_parameter_may_be_called_anything():
    def f(title: str, schema: int, copy: bool, properties: str, self_: str = "") -> None:
        pass

    tool = Tool.of(f)
    assert list(tool.parameters["properties"]) == ["title", "schema", "copy", "properties", "self_"]
    assert tool.check({"title": "x", "schema": 1, "copy": True, "properties": "p"})["schema"] == 1


STYLES = {
    "google": "Do it.\n\nArgs:\n    a: first\n    b (int): second\n        and on\n\nReturns:\n    c: third",
    "numpy": "Do it.\n\nParameters\n----------\na : int\n    first\nb\n    second\n    and on"
    "\n\nReturns\n-------\nc : int\n    third",
    "rest": "Do it.\n\n:param a: first\n:param int b: second\n    and on\n:returns: third\n:rtype: int",
}


@pytest.mark.parametrize("style", STYLES)
def test_docstrings_are_read(style):
    doc = read_docstring(STYLES[style])
    assert doc.description == "Do it."
    assert doc.parameters == {"a": "first", "b": "second and on"}


# What a parser of well-formed docstrings may lose: each has one parameter, `a`.
LOOSE = {
    "no blank line": "Do it.\nArgs:\n    a: first\nReturns:\n    x",
    "nothing above": ":param a: first",
    "one field": "Do it.\n\n:param a: first",
    "a line that is no item": "Do it.\n\nArgs:\n    b - no colon\n    a: first",
    "other headings": "Do it.\n\nKeyword Args:\n    a: first",
    "stars and a colon in the text": "Do it.\n\nArgs:\n    **a (dict[str, int]): first",
    "names together": "Do it.\n\nOther Parameters\n----------------\na : int\n    first\n\nNotes\n-----\nb : no",
}


@pytest.mark.parametrize("text", LOOSE.values(), ids=LOOSE)
def test_loosely_written_docstrings_are_read(text):
    assert read_docstring(text).parameters == {"a": "first"}


def test_a_plain_docstring_and_none():
    assert read_docstring("One line\nand on.\n\nMore: of it.").description == "One line and on.\nMore: of it."
    assert read_docstring(None).description == ""
    assert not read_docstring("Time: 3\n\n:param").parameters


def test_methods_partials_and_objects_are_tools():
    class Shop:
        """A shop."""

        def price(self, item: str) -> float:
            """Price of an item."""
            return 2.0

        def __call__(self, item: str) -> str:
            return item.upper()

    shop = Shop()
    assert Tool.of(shop.price).schema["function"]["description"] == "Price of an item."
    assert list(Tool.of(shop.price).parameters["properties"]) == ["item"]
    assert Tool.of(shop).name == "Shop"
    assert Tool.of(shop).call({"item": "x"}) == "X"
    half = Tool.of(functools.partial(add, b=5))
    assert half.call(half.check({"a": 1})) == 6


def test_positional_only_parameters_are_handed_over_by_place():
    def f(a: int, b: int = 2, /, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    tool = Tool.of(f)
    assert tool.call(tool.check({"a": 1, "c": 9})) == (1, 2, 9)


def test_arguments_are_coerced():
    def f(n: int, text: str, when: dt.date, unit: Unit, point: Point, ok: bool = False) -> None:
        pass

    given = {"n": "3", "text": 42, "when": "2024-02-29", "unit": "celsius", "point": {"x": "1"}, "ok": "true"}
    assert Tool.of(f).check(given) == {
        "n": 3, "text": "42", "when": dt.date(2024, 2, 29), "unit": Unit.C, "point": Point(1), "ok": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [({}, "a: Field required"), ({"a": "x"}, "a: .*integer"), ({"a": 1, "c": 2}, "c: Extra inputs")],
)
def test_arguments_that_do_not_fit_are_named(given, says):
    with pytest.raises(ValueError, match=says):
        Tool.of(add).check(given)


def no_hints(a, b):
    pass


def starred(*args: int):
    pass


def unwritable(a: type[int], b: BadInputError):
    pass


BAD = [
    ([], "empty"),
    ("add", "list of functions"),
    ({"name": "add"}, "list of functions"),
    ([3], "must be a function"),
    ([add(1, 2)], "must be a function"),
    ([add, add], "Two tools have the same name, 'add'"),
    ([no_hints], "a, b have no type hint"),
    ([starred], r"\*args"),
    ([lambda a: a], "<lambda>"),
    ([unwritable], "can't be represented in JSON"),
]


@pytest.mark.parametrize(("tools", "says"), BAD, ids=[says for _, says in BAD])
def test_what_cannot_be_a_tool_is_refused_with_a_fix(tools, says):
    with pytest.raises(BadInputError, match=says) as caught:
        Toolbox(tools)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_unknown_tool_names_the_known_and_the_closest():
    with pytest.raises(UnknownNameError, match="Did you mean 'add'") as caught:
        Toolbox([add]).find("ad")
    assert caught.value.known == ("add",)
