"""`--think`, and the folded thought in a cell's output."""

from __future__ import annotations

import pytest

from tests.scripted_engine import TEMPLATE, add

THINKS = TEMPLATE + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{# </think> #}"


@pytest.fixture
def thinker(bench):
    """A scripted model that thinks, then answers."""
    engine = add(bench.lab, "thinker", folder=bench.folder, context=2048, template=THINKS)
    texts = ["Is <b>it</b>?\n\nHm.</think>", "Yes."] * 2
    engine.say = lambda prompt, request: texts.pop(0)
    return engine


def test_the_thought_is_folded_above_the_answer(bench, thinker):
    thinker.pace = 0.02
    ran = bench.run("%%llm\nReally?")
    assert ran.result.text == "Yes."
    assert ran.result.reasoning == "Is <b>it</b>?\n\nHm."
    shown = [one["data"] for one in ran.displays]
    assert any("thinking… " in one["text/plain"] for one in shown[:-1])
    last = shown[-1]["text/markdown"]
    assert last.startswith("<details><summary><small>thought, ")
    assert "Is &lt;b&gt;it&lt;/b&gt;?<br><br>Hm." in last
    assert "\n\nYes.\n\n" in last
    assert "tokens of thought" in last
    assert shown[-1]["text/plain"].splitlines()[1] == "Yes."


def test_the_text_format_folds_too(bench, thinker):
    page = bench.run("%%llm -f text\nReally?").displays[-1]["data"]["text/html"]
    assert "<details>" in page
    assert "<b>it</b>" not in page
    assert ">Yes.</pre>" in page


@pytest.mark.parametrize(("how", "opened"), [("on", True), ("off", False)])
def test_think_sets_the_templates_switch(bench, thinker, how, opened):
    bench.run(f"%%llm --think {how}\nReally?")
    assert thinker.prompts[0].endswith("<think>") == opened


def test_a_number_closes_the_thought(bench, thinker):
    ran = bench.run("%%llm --think 5\nReally?")
    assert ran.result.choices[0].reasoning_cut
    assert "closed at its limit" in ran.displays[-1]["data"]["text/plain"]


@pytest.mark.parametrize(("how", "says"), [("deep", "not 'deep'"), ("low", "doesn't read reasoning_effort")])
def test_bad_values_are_one_clear_line(bench, thinker, how, says):
    assert says in bench.fails(f"%%llm --think {how}\nReally?")
    assert thinker.prompts == []


def test_a_thought_is_not_sent_again(bench, thinker):
    bench.run("%%llm\nReally?")
    bench.run("%%llm -c\nSure?")
    assert "Hm." not in thinker.prompts[2]
