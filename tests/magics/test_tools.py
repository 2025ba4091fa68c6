"""`%%llm --tools` and `%llm tools` in a real shell: what is shown, what is kept, what is refused; XSS in all of it."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from llmlab import zoo

DEFINE = '''
import os, signal, threading, time
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b

def evil() -> str:
    """Return markup."""
    return "<img src=x onerror=alert(1)> [x](javascript:alert(1)) \\x1b[31m ![i](http://e.org/i.png)"

def boom() -> str:
    """Fail."""
    raise RuntimeError("<script>alert(2)</script>")

def bare(a):
    return a

def slow() -> str:
    """Take long."""
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    time.sleep(20)

kit = [add, evil]
'''


def call(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments})


@pytest.fixture
def cells(bench):
    """A bench whose model says what it is told to; `say(...)` sets the texts."""
    engine = bench.add()
    model = bench.lab.current
    template = (zoo.path("nano") / "chat_template.jinja").read_text()
    model._facts = engine.facts = dataclasses.replace(engine.facts, chat_template=template)

    def say(*texts):
        left = list(texts)
        engine.say = lambda prompt, request: left.pop(0) if left else "The end."

    bench.say, bench.engine = say, engine
    assert bench.run(DEFINE).success
    return bench


def test_calls_are_shown_as_they_happen_in_one_display(cells):
    cells.say(call("add", a=2, b=3), "It is **5**.")
    cells.engine.pace = 0.005
    ran = cells.run("%%llm --tools add -o answer\nHow much is 2 + 3?")
    assert ran.success
    assert ran.result.text == "It is **5**."
    assert cells.shell.user_ns["answer"] is ran.result
    first, *updates = ran.displays
    assert updates
    assert all(one["transient"]["display_id"] == first["transient"]["display_id"] for one in updates)
    assert all(one["update"] for one in updates)
    shown = [one["data"]["text/plain"] for one in ran.displays]
    assert any("add(a=2, b=3) running" in text for text in shown)
    last = ran.displays[-1]["data"]
    assert last["text/plain"].startswith("→ add(a=2, b=3) = 5 (")
    assert "It is **5**." in last["text/markdown"]
    assert "nano · llamacpp" in last["text/plain"]


def test_history_keeps_the_tool_turns_for_c(cells):
    cells.say(call("add", a=2, b=3), "It is 5.", "Yes, 5.")
    cells.run("%%llm --tools add\nHow much is 2 + 3?")
    assert cells.run("%%llm -c\nSure?").success
    assert (
        '<|assistant|>{"name": "add", "arguments": {"a": 2, "b": 3}}<|end|><|tool|>5<|end|>' in cells.engine.prompts[-1]
    )
    history = cells.run("%llm history").result
    assert "→ add(a=2, b=3)" in history.text()
    assert [m.role for m in cells.lab.history.current.messages] == [
        "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip


@pytest.mark.parametrize("fmt", ["md", "text", "json", "code"])
def test_markup_in_arguments_results_and_errors_is_escaped(cells, fmt):
    cells.say(call("evil", x="<script>alert(0)</script>"), call("evil"), call("boom"), call("<b>no</b>"), "done")
    ran = cells.run(f"%%llm --tools evil,boom -f {fmt}\nGo")
    assert ran.success
    history = cells.run("%llm history").result
    seen = [text for one in ran.displays for text in one["data"].items()]
    seen += [("text/html", history._repr_html_()), ("text/plain", history.text())]
    for mime, text in seen:
        assert "\x1b" not in text
        if mime == "text/plain":
            continue
        # What stands in a fence is code to every renderer; nothing in it can close it.
        outside = re.sub(r"(?ms)^(`{3,})[a-z]*\n.*?^\1$", "", text) if mime == "text/markdown" else text
        for bad in ("<script", "<img", "<b>no", *(("](javascript:", "![") if mime == "text/markdown" else ())):
            assert bad not in outside, (mime, bad, text)


def test_errors_and_unknown_tools_do_not_fail_the_cell(cells):
    cells.say(call("boom"), call("rm", path="/"), "ok")
    ran = cells.run("%%llm --tools boom\nGo")
    assert ran.success
    text = ran.displays[-1]["data"]["text/plain"]
    assert "boom() failed: RuntimeError: " in text
    assert "rm(path='/') failed: unknown tool 'rm'" in text


def test_ctrl_c_in_a_tool_ends_the_cell_and_keeps_what_came(cells):
    cells.say(call("add", a=1, b=1), call("slow"), "never")
    ran = cells.run("%%llm --tools add,slow\nGo")
    assert ran.success
    assert ran.result.finish_reason == "interrupted"
    assert [step.result or step.error for step in ran.result.steps] == ["2", "interrupted"]
    assert "slow() failed: interrupted" in ran.displays[-1]["data"]["text/plain"]


def test_approve_asks_in_a_notebook(cells, monkeypatch):
    monkeypatch.setattr("llmlab.tool_calls.options.can_ask", lambda: True)
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "n")
    cells.say(call("add", a=1, b=1), "no")
    ran = cells.run("%%llm --tools add --approve\nGo")
    assert asked == ["Run add(a=1, b=1)? [y/N] "]
    assert ran.result.steps[0].error == "the user did not allow this call"


@pytest.mark.parametrize(("text", "says"), [
    ("--tools add --approve", "no standard input here"),
    ("--tools ad", "Did you mean 'add'"),
    ("--tools nothing_like_it", "no function 'nothing_like_it'"),
    ("--tools ,", "doesn't name a function"),
    ("--tools bare", "a has no type hint"),
    ("--tools add,add", "Two tools have the same name, 'add'"),
    ("--tools kit,add", "Two tools have the same name, 'add'"),
    ("--tools os", "must be a function"),
    ("--tools add --tool-choice sub", "Known: auto, none, required, add"),
    ("--tools add --max-steps 0", "max_steps"),
    ("--tools add --max-steps x", "must be an integer"),
    ("--tools add --schema os", "schema and tools"),
    ("--tools add -n 2", "n and tools"),
    ("--strict", "--strict needs tools"),
    ("--tool-choice auto", "--tool-choice needs tools"),
    ("--tools add --raw", "raw"),
])  # fmt: skip
def test_bad_input_is_one_clear_line(cells, text, says):
    assert says in cells.fails(f"%%llm {text}\nGo")
    assert cells.engine.prompts == []


def test_a_model_without_a_place_for_tools_says_so(cells):
    cells.add("old")
    # Its calls would be generated under their schema, which this scripted engine can't do.
    assert "guided generation" in cells.fails("%%llm --tools add\nGo")


def test_a_list_of_functions_and_max_steps(cells):
    cells.say(*[call("add", a=i, b=i) for i in range(5)])
    ran = cells.run("%%llm --tools kit --max-steps 2 --no-stream\nGo")
    assert ran.result.finish_reason == "tool_calls"
    assert len(ran.result.steps) == 2
    text = ran.displays[-1]["data"]["text/plain"]
    assert "add(a=2, b=2) was not run" in text
    assert "tool calls" in text


def test_the_tools_command_explains_functions(cells):
    view = cells.run("%llm tools add").result
    assert '"description": "the first."' in view.text()
    assert "call format plain" in view.text()
    everything = cells.run("%llm tools").result
    assert "bare can't be a tool: Tool bare: a has no type hint" in everything.text()
    assert {schema["function"]["name"] for schema in everything.schemas} == {"add", "evil", "boom", "slow"}
    assert "<script" not in everything._repr_html_()
    assert "there is no function 'ad'" in cells.fails("%llm tools ad")
    assert "doesn't name a function" in cells.fails("%llm tools ,")


def test_in_a_terminal_calls_are_printed(cells):
    from IPython.core.displaypub import DisplayPublisher

    cells.say(call("add", a=1, b=1), "It is 2.")
    captured = cells.shell.display_pub
    cells.shell.display_pub = DisplayPublisher()
    try:
        cells.capsys.readouterr()
        cells.shell.run_cell("%%llm --tools add\nGo", store_history=True)
        out = cells.capsys.readouterr().out
    finally:
        cells.shell.display_pub = captured
    assert out.startswith("→ add(a=1, b=1) = 2 (")
    assert "It is 2." in out
    assert out.count("add(a=1, b=1)") == 1
