"""Tools for a template without a place for them: described in the system prompt, calls under their schema."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from llguidance import LLTokenizer

from llmlab import Message
from llmlab.display import completion_line
from llmlab.errors import UnknownNameError, UnsupportedError
from llmlab.guided.compiler import Compiler, Vocabulary
from llmlab.tool_calls.generic import GENERIC, family_for, generic_messages
from llmlab.tool_calls.strict import calls_guide
from llmlab.tool_calls.tool import Toolbox

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def plain(model, monkeypatch):
    """nano with a template without tools."""
    monkeypatch.setattr(model, "_facts", replace(model.facts, chat_template=PLAIN))
    return model


def test_a_forced_call_is_valid_and_its_result_goes_back(plain):
    done = plain.generate("How much is 12 + 30?", tools=[add], tool_choice="required", temperature=0, max_tokens=80)
    assert done.tool_format == "generic"
    assert "tools in the generic format" in completion_line(done)
    step = done.steps[0]
    assert not step.error
    assert set(step.arguments) == {"a", "b"}
    assert step.result == str(step.arguments["a"] + step.arguments["b"])
    assert f"Result of add: {step.result}" in done.prompt


def test_what_is_said_is_an_answer_or_a_valid_call(plain):
    done = plain.generate("How much is 12 + 30?", tools=[add], temperature=1.0, seed=3, max_tokens=60, max_steps=2)
    assert done.text or done.steps or done.tool_calls
    assert not any(call.problem for call in done.tool_calls)
    assert not any("can't be read" in step.error for step in done.steps)


@pytest.mark.parametrize("required", [True, False])
def test_a_message_has_one_call(required):
    """SmolLM2 repeated a forced call until `max_tokens`, and none of them ran."""
    compiler = Compiler(lambda: LLTokenizer(Vocabulary([bytes([i]) for i in range(256)], (), (256,)), slices=[]))
    matcher = compiler.matcher(calls_guide(GENERIC, Toolbox([add]), special=lambda _: None, required=required))
    call = list(b'{"name": "add", "arguments": {"a": 1, "b": 2}}')
    assert matcher.try_consume_tokens(call) == len(call)
    assert matcher.is_accepting()
    assert matcher.try_consume_tokens([*b"\n", *call]) <= 1


def test_the_conversation_becomes_plain_text():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    turns = [Message("user", "Go"), Message("assistant", "Well.", (call,)), Message("tool", "3", name="add")]
    system, first, said, result = generic_messages(turns, Toolbox([add]).schemas, PLAIN)
    assert system.role == "system"
    assert '"name": "add"' in system.content
    assert first.content == "Go"
    assert said.content.splitlines() == ["Well.", json.dumps({"name": "add", "arguments": {"a": 1, "b": 2}})]
    assert (result.role, result.content) == ("user", "Result of add: 3")
    merged = generic_messages([Message("system", "Be brief."), *turns], Toolbox([add]).schemas, PLAIN)
    assert merged[0].content.startswith("Be brief.\n\nYou can call")
    assert generic_messages(turns, Toolbox([add]).schemas, NO_SYSTEM)[0].role == "user"


def test_it_is_chosen_where_the_template_has_no_place(saying):
    assert family_for("auto", PLAIN, "old").name == "generic"
    assert family_for("auto", PLAIN + "{# tools #}", "nano").name == "plain"
    assert family_for("generic", PLAIN + "{# tools #}", "nano").name == "generic"
    with pytest.raises(UnsupportedError, match="no place"):
        family_for("auto", None, "base")
    with pytest.raises(UnknownNameError, match="tool_format"):
        saying("x").generate("Go", tools=[add], tool_format="xml")
