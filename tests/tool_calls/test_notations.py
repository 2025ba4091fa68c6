"""`strict` in the call formats that aren't JSON: every text under a grammar is a valid call that fits its tool."""

import dataclasses
import datetime as dt
import enum
import random
from typing import Annotated, Literal

import numpy as np
import pydantic
import pytest
from llguidance import LLTokenizer

from llmlab.errors import UnsupportedError
from llmlab.guided.compiler import Compiler, Vocabulary
from llmlab.tool_calls import Toolbox
from llmlab.tool_calls.families import FAMILIES, read_calls
from llmlab.tool_calls.strict import calls_guide

STRICT = {family.name: family for family in FAMILIES if family.strict}
END = 256


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclasses.dataclass
class Point:
    x: int
    tag: str = ""


def weather(city: str, unit: Unit = Unit.C) -> str:
    """Tell the weather."""
    return city


def add(a: int, b: float) -> int:
    """Add."""
    return a


def nothing() -> None:
    """Do nothing."""


def draw(points: list[Point], note: str | None = None, when: dt.date | None = None, flag: bool = False) -> None:
    """Draw."""


def short(code: Annotated[str, pydantic.Field(pattern="^[a-z]{2}$")], which: Literal["on", "off"] = "on") -> None:
    """Take a code."""


BOX = Toolbox([weather, add, nothing, draw, short])


@pytest.fixture(scope="module")
def compiler():
    return Compiler(lambda: LLTokenizer(Vocabulary([bytes([i]) for i in range(256)], (), (END,)), slices=[]))


def guide_of(name, box=BOX, **options):
    return calls_guide(STRICT[name], box, special=lambda text: None, **{"required": True, **options})


def follows(compiler, guide, text):
    matcher = compiler.matcher(guide)
    ids = list(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


def walk(compiler, guide, rng, most=500):
    """A random text under the masks; "" if it doesn't end in time."""
    matcher, out = compiler.matcher(guide), bytearray()
    while len(out) < most:
        if matcher.is_accepting() and rng.random() < 0.5:
            return out.decode("utf-8", "replace")
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = [int(token) for token in np.flatnonzero(bits[:END])]
        if not allowed:
            return out.decode("utf-8", "replace")
        ends = [token for token in allowed if token in b'<"}])>\n\\']
        letters = [token for token in allowed if token < 128 and chr(token).isalnum()]
        token = rng.choice(ends if ends and rng.random() < 0.35 else letters or allowed)
        matcher.consume_token(token)
        out.append(token)
    return ""


@pytest.mark.parametrize("name", STRICT)
def test_whatever_the_masks_allow_is_a_valid_call(compiler, name):
    guide, rng = guide_of(name, several=False), random.Random(1)
    schemas = {tool.name: tool.parameters for tool in BOX}
    seen = set()
    for _ in range(16):
        text = walk(compiler, guide, rng)
        if not text:
            continue
        read = read_calls(STRICT[name], text, 0, schemas)
        assert read.calls, text
        for call in read.calls:
            assert not call.problem, text
            BOX.find(call.name).check(call.arguments)
            seen.add(call.name)
        guide.check(text)
    assert len(seen) >= 3


GOOD = {
    "qwen-xml": "<tool_call>\n<function=weather>\n<parameter=city>\nZürich\n</function>\n\n</parameter>\n</function>\n"
    "</tool_call>",
    "glm": "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Zürich\n</function>\n</arg_value>\n</tool_call>",
    "seed": "<seed:tool_call>\n<function=weather>\n<parameter=city>Zürich\n</function>\n</parameter>\n</function>\n"
    "</seed:tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Zürich\n</function>\n</parameter>'
    "\n</invoke>\n</minimax:tool_call>",
    "dsml": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" string="true">'
    "Zürich\n</function>\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "harmony": "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
    '{"city": "Zürich\\n</function>\\n"}',
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
    '{"city": "Zürich\\n</function>\\n"}<|tool_call_end|><|tool_calls_section_end|>',
    "gemma4": '<|tool_call>call:weather{city:<|"|>Zürich\n</function>\n<|"|>}<tool_call|>',
    "lfm2": '<|tool_call_start|>[weather(city="Zürich\\n</function>\\n")]<|tool_call_end|>',
}


@pytest.mark.parametrize("name", GOOD)
def test_a_call_as_the_model_writes_it_passes_and_a_wrong_one_does_not(compiler, name):
    text, guide = GOOD[name], guide_of(name)
    assert follows(compiler, guide, text)
    (call,) = read_calls(STRICT[name], text, 0, {tool.name: tool.parameters for tool in BOX}).calls
    assert (call.name, call.arguments, call.problem) == ("weather", {"city": "Zürich\n</function>\n"}, "")
    for wrong in (text.replace("city", "town"), text.replace("weather", "whether"), text.replace("weather", "add")):
        assert not follows(compiler, guide, wrong)
    free = guide_of(name, required=False)
    assert follows(compiler, free, text)
    if name == "harmony":
        assert follows(compiler, free, "<|channel|>final<|message|>It is {warm}.")
        assert STRICT[name].read("<|channel|>final<|message|>It is warm.").content == "It is warm."
    else:
        assert follows(compiler, free, "It is {warm} < hot.")
        assert follows(compiler, free, f"Let me < see.\n{text}")


def test_the_values_of_tags_are_held_to_their_schema(compiler):
    def call(key, value, name="short"):
        return f"<tool_call>{name}\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>"

    guide = guide_of("glm")
    assert follows(compiler, guide, call("code", "ab"))
    assert not follows(compiler, guide, call("code", "abc"))
    assert not follows(compiler, guide, call("code", '"ab"'))
    assert not follows(compiler, guide, call("city", "a <tool_call>b", "weather"))
    assert follows(compiler, guide, call("points", '[{"x": 1, "tag": "</tool_call>"}]', "draw"))
    assert not follows(compiler, guide, call("points", '[{"x": "1"}]', "draw"))


def test_gemmas_values_are_held_to_their_schema(compiler):
    def call(arguments, name):
        return f"<|tool_call>call:{name}{{{arguments}}}<tool_call|>"

    guide = guide_of("gemma4")
    for good in (
        'points:[{x:1,tag:<|"|>a<|"|>},{x:2}],flag:true',
        "points:[]",
        'points:[],note:null,when:<|"|>2024-02-29<|"|>',
    ):
        assert follows(compiler, guide, call(good, "draw")), good
    for bad in (
        "points:[{y:1}]",
        "points:[{x:1.5}]",
        "flag:true",
        'points:[],when:<|"|>2024-02-30<|"|>',
    ):
        assert not follows(compiler, guide, call(bad, "draw")), bad
    assert follows(compiler, guide, call('code:<|"|>ab<|"|>,which:<|"|>off<|"|>', "short"))
    assert not follows(compiler, guide, call('code:<|"|>ab<|"|>,which:<|"|>of<|"|>', "short"))


def test_special_tokens_stand_for_their_texts():
    ids = {"<|tool_call>": 48, "<tool_call|>": 49, '<|"|>': 52}
    text = calls_guide(STRICT["gemma4"], Toolbox([weather]), special=ids.get, required=True).text
    assert "start: <[48]> any <[49]>" in text
    assert '"city:" <[52]> T' in text
    dsml = calls_guide(STRICT["dsml"], Toolbox([weather]), special={"｜DSML｜": 7}.get, required=False).text
    assert '"</" <[7]>' in dsml
    assert "LEAD: /(.|\\n)*\\x{3c}/" in dsml


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("gemma4", dict[str, int], "free keys in take.it"),
        ("glm", pydantic.IPvAnyAddress, "format 'ipvanyaddress'"),
        ("qwen-xml", Annotated[str, pydantic.Field(pattern="a", max_length=3)], "pattern with maxLength"),
    ],
)
def test_a_parameter_that_a_format_cannot_hold_is_refused_by_name(name, kind, says):
    def take(it): ...

    take.__annotations__ = {"it": kind}
    with pytest.raises(UnsupportedError, match=says) as caught:
        guide_of(name, Toolbox([take]))
    assert name in str(caught.value)
