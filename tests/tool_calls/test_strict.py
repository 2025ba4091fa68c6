"""The grammars of `strict`: for every family, valid calls are allowed and invalid ones are not."""

from __future__ import annotations

import decimal
import enum
import json
import typing
from typing import Literal

import pytest

from llmlab.errors import UnsupportedError
from llmlab.guided import make
from llmlab.guided.compiler import Compiler, Vocabulary
from llmlab.tool_calls import Toolbox
from llmlab.tool_calls.families import FAMILIES
from llmlab.tool_calls.strict import calls_guide


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


def weather(city: str, unit: Unit = Unit.C) -> str:
    """Tell the weather."""
    return city


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def mode(which: Literal["on", "off"]) -> None:
    """Switch."""


BOX = Toolbox([weather, add, mode])
GOOD = [("add", {"a": 1, "b": -2}), ("weather", {"city": 'Zürich "x"'}), ("weather", {"city": "", "unit": "celsius"}),
        ("mode", {"which": "off"}), ("weather", {"city": "end with </tool_call> now"}),
        ("weather", {"city": "<tool_call>{} [TOOL_CALLS]x[ARGS]{} <|python_tag|>"})]  # fmt: skip
BAD = [("sub", {"a": 1}), ("add", {"a": 1}), ("add", {"a": "1", "b": 2}), ("add", {"a": 1, "b": 2, "c": 3}),
       ("weather", {"city": "x", "unit": "kelvin"}), ("mode", {"which": "maybe"})]  # fmt: skip
FORMS = {
    "plain": lambda n, a: json.dumps({"name": n, "arguments": a}, ensure_ascii=False),
    "llama3": lambda n, a: json.dumps({"name": n, "parameters": a}, ensure_ascii=False),
    "hermes": lambda n, a: (
        "<tool_call>\n" + json.dumps({"name": n, "arguments": a}, ensure_ascii=False) + "\n</tool_call>"
    ),
    "mistral": lambda n, a: "[TOOL_CALLS] [" + json.dumps({"name": n, "arguments": a}, ensure_ascii=False) + "]",
    "mistral-args": lambda n, a: f"[TOOL_CALLS]{n}[ARGS]" + json.dumps(a, ensure_ascii=False),
}
BY_NAME = {family.name: family for family in FAMILIES}


@pytest.fixture(scope="module")
def compiler():
    from llguidance import LLTokenizer

    return Compiler(lambda: LLTokenizer(Vocabulary([bytes([i]) for i in range(256)], (), (256,)), slices=[]))


def follows(compiler, guide, text):
    """Whether the masks allow this complete text."""
    matcher = compiler.matcher(guide)
    ids = list(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


def guide_of(family, **options):
    return calls_guide(BY_NAME[family], BOX, special=lambda text: None, **{"required": True, **options})


@pytest.mark.parametrize("family", FORMS)
def test_calls_that_fit_pass_and_others_do_not(compiler, family):
    guide = guide_of(family)
    for name, arguments in GOOD:
        text = FORMS[family](name, arguments)
        assert follows(compiler, guide, text), text
        (call,) = BY_NAME[family].read(text).calls
        assert (call.name, call.arguments) == (name, arguments)
        guide.check(text)
    for name, arguments in BAD:
        text = FORMS[family](name, arguments)
        assert not follows(compiler, guide, text), text
    assert not follows(compiler, guide, "Just text.")


class Size(enum.Enum):
    S = "small"
    L = "large"


class Pair(typing.TypedDict):
    x: int
    y: typing.NotRequired[int]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "value"),
    [
        (decimal.Decimal, "1.5", '"abc"', decimal.Decimal("1.5")),
        (set[int], "[1, 2, 2]", '["a"]', {1, 2}),
        (frozenset[str], '["a"]', "[1]", frozenset(["a"])),
        (dict[Size, int], '{"large": 2}', '{"huge": 2}', {Size.L: 2}),
        (dict[Literal["on", "off"], bool], '{"off": true}', '{"of": true}', {"off": True}),
        (Pair, '{"x": 1}', '{"y": 1}', {"x": 1}),
        (list[Pair], '[{"x": 1, "y": 2}]', "[{}]", [{"x": 1, "y": 2}]),
    ],
)
def test_what_the_docs_list_as_a_parameter_is_one(compiler, kind, good, bad, value):
    def give(it): ...

    give.__annotations__ = {"it": kind}
    box = Toolbox([give])
    guide = calls_guide(BY_NAME["plain"], box, special=lambda text: None, required=True)
    text = f'{{"name": "give", "arguments": {{"it": {good}}}}}'
    assert follows(compiler, guide, text)
    guide.check(text)
    (call,) = BY_NAME["plain"].read(text).calls
    assert box.find("give").check(call.arguments) == {"it": value}
    assert not follows(compiler, guide, f'{{"name": "give", "arguments": {{"it": {bad}}}}}')
    assert make(type=kind).parse(good) == value


@pytest.mark.parametrize("family", FORMS)
def test_unless_a_call_is_required_text_passes_too(compiler, family):
    guide = guide_of(family, required=False)
    assert follows(compiler, guide, "Just text, with {braces}\nand lines.")
    assert follows(compiler, guide, FORMS[family]("add", {"a": 1, "b": 2}))
    prose = BY_NAME[family].opening or BY_NAME[family].before
    assert follows(compiler, guide, "Hm. " + FORMS[family]("add", {"a": 1, "b": 2})) or not prose
    assert not follows(compiler, guide, FORMS[family]("add", {"a": 1}))


@pytest.mark.parametrize(("family", "text"), [
    ("plain", '{"name": "add", "arguments": {"a": 1, "b": 2}}\n{"name": "mode", "arguments": {"which": "on"}}'),
    ("hermes", "Well.\n" + FORMS["hermes"]("add", {"a": 1, "b": 2}) + "\n" + FORMS["hermes"]("mode", {"which": "on"})),
    ("mistral", FORMS["mistral"]("add", {"a": 1, "b": 2})[:-1] + ', {"name": "mode", "arguments": {"which": "on"}}]'),
    ("mistral-args", '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]mode[ARGS]{"which": "on"}'),
])  # fmt: skip
def test_parallel_calls_pass(compiler, family, text):
    assert follows(compiler, guide_of(family, required=False), text)
    assert len(BY_NAME[family].read(text).calls) == 2
    assert not follows(compiler, guide_of(family, several=False), text)


def test_a_control_token_stands_for_its_text():
    ids = {"[TOOL_CALLS]": 9, "[ARGS]": 32}
    guide = calls_guide(BY_NAME["mistral-args"], Toolbox([add]), special=ids.get, required=True)
    assert "start: <[9]> any" in guide.text
    assert '"add" <[32]> r0' in guide.text


def test_a_format_that_cannot_is_named():
    with pytest.raises(UnsupportedError, match="gigachat"):
        guide_of("gigachat")
