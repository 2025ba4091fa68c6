"""The rule for maths, as cells write it; the chat's front end is tested with the same cases."""

import json
import re
import time
from pathlib import Path

import pytest

from llmlab import display
from llmlab.render import safe
from llmlab.render.maths import formula_at
from llmlab.types import Choice

CASES = json.loads((Path(__file__).parents[1] / "maths_cases.json").read_text())
# Code is out of reach of a notebook's maths.
CODE = re.compile(r"<code>.*?</code>|^(`{3,})[^\n]*\n.*?^\1$|(`+)[^\n]*?\2", re.DOTALL | re.MULTILINE)
MATHS = re.compile(r"\$\$(.+?)\$\$|\$((?:[^${\\]|\\.|\{[^}]*\})+)\$", re.DOTALL)


def found(source: str) -> list[list[object]]:
    """What a notebook's renderer takes for maths, which goes by dollars alone."""
    return [[m[1] or m[2], m[1] is not None] for m in MATHS.finditer(CODE.sub("`", source))]


def flat(tex: str) -> str:
    return re.sub(r"\s*\n\s*", " ", tex).replace("a<b", "a< b")


@pytest.mark.parametrize("case", CASES, ids=[case["text"] for case in CASES])
def test_what_is_maths(case):
    source = safe.markdown(case["text"])
    assert found(source) == [[flat(tex), display] for tex, display in case["maths"]], source


def test_a_dollar_alone_stays_easy_to_copy():
    assert safe.markdown("it costs $5") == "it costs $5"
    assert safe.markdown("$5 or $10") == "<span>&#36;</span>5 or <span>&#36;</span>10"


def test_code_and_addresses_keep_their_dollars():
    assert safe.markdown("`$a` and `$b`") == "`$a` and `$b`"
    assert "https://e.org/?a=%24b&c=%24d" in safe.markdown("[x](https://e.org/?a=$b&c=$d)")
    assert safe.markdown("run\n\n    echo $A <b> $B\n\nthen") == "run\n\n```\necho $A <b> $B\n```\n\nthen"
    assert safe.markdown("- a\n\n    b $1 $2").startswith("- a\n\n    b <span>")


def test_a_formula_in_a_quote_is_without_its_marks():
    assert safe.markdown("> \\[\n> a > b\n> \\]") == "> $$a > b$$"


@pytest.mark.parametrize("piece", ["${", r"\({}", r"\[{", "$$a", "$a", r"\(", "$$\n", "\\[\n", "{$}", "$a{}"])
def test_adversarial_texts_take_linear_time(piece):
    began = time.thread_time()
    safe.markdown(piece * (60_000 // len(piece)))
    assert time.thread_time() - began < 20  # a guard against a hang; 0.2 s where it was written


def test_no_output_lets_prices_become_maths():
    line = display.bundle(["x"], line="a $b$ c")["text/markdown"]
    assert "a <span>&#36;</span>b<span>&#36;</span> c" in line
    view = display.ChoiceView(Choice("it costs $5 or $10", (1,), "stop"))
    assert "mathjax_ignore" in view._repr_html_()


def test_formula_at_a_place_without_one():
    assert formula_at("x", 0) is None
    assert formula_at("$", 0) is None
