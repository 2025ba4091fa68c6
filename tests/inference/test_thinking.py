"""A thought and its answer as requests to the engines: budgets, constraints, streams. nano is made to think."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llmlab import Message
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.inference import thoughts
from llmlab.inference.thoughts import ThoughtFamily
from llmlab.tool_calls.families import FAMILIES as CALLS
from tests.tool_calls.conftest import saying as saying

ASK = "What is the capital of France?"  # nano continues: The capital of France is Paris.
SWITCH = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{# </think> #}"


@pytest.fixture
def thinker(model, monkeypatch):
    """nano with a template that opens a thought, which ends at the mark given."""
    base = model.facts

    def make(closing: str = "</think>", *, opens: bool = True, after: str = ""):
        monkeypatch.setattr(thoughts, "FAMILIES", (ThoughtFamily("test", "<think>", closing, after=after, inside=""),))
        end = SWITCH if opens else "{# <think> #}"
        monkeypatch.setattr(model, "_facts", replace(base, chat_template=(base.chat_template or "") + end))
        return model

    return make


def test_a_thought_ends_at_its_mark(thinker):
    model = thinker(" P")
    done = model.generate(ASK, temperature=0, max_tokens=24)
    assert (done.reasoning, done.text) == ("is", "aris.")
    assert 0 < done.reasoning_tokens < done.usage.completion_tokens
    assert done.usage.completion_tokens == done.reasoning_tokens + len(done.token_ids)
    assert done.finish_reason == "stop"
    assert done.message == Message("assistant", "aris.", reasoning="is")


def test_the_stream_says_what_is_thought(thinker):
    chunks = list(thinker("</think>").stream(ASK, temperature=0, think=2))
    assert "".join(chunk.reasoning for chunk in chunks).strip() == "is P"
    assert not any(chunk.text and chunk.reasoning for chunk in chunks)
    first = [bool(chunk.text) for chunk in chunks].index(True)
    assert not any(chunk.reasoning for chunk in chunks[first:])


def test_a_budget_closes_the_thought(thinker):
    done = thinker().generate(ASK, temperature=0, think=3, max_tokens=40)
    assert done.choices[0].reasoning_cut
    assert done.reasoning_tokens == 3 + len(thinker().tokenize("</think>"))
    again = thinker().generate(ASK, temperature=0, think=0)
    assert (again.reasoning, again.reasoning_tokens) == ("", 0)


def test_a_constraint_starts_after_the_thought(thinker):
    model = thinker(" P")
    done = model.generate(ASK, temperature=0, choice=["yes", "no"])
    assert done.reasoning == "is"
    assert done.parsed in ("yes", "no")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    cut = thinker().generate(ASK, temperature=0, think=2, schema=schema, complete=True, max_tokens=60)
    assert set(cut.parsed) == {"n"}
    assert cut.reasoning
    assert len(cut.guidance.steps) <= len(cut.token_ids)


def test_a_stop_string_is_for_the_answer(thinker):
    assert thinker("ari").generate(ASK, temperature=0, stop="is").reasoning == "is P"


def test_other_limits_are_for_the_answer_too(thinker):
    model = thinker(" P")
    (inside,) = {model.tokenize(" is")[0]}
    done = model.generate(ASK, temperature=0, stop_token_ids=[inside], min_tokens=4, max_tokens=40)
    assert done.reasoning == "is"
    assert len(done.token_ids) >= 4


def test_a_cut_answer_goes_on_after_its_thought(thinker, monkeypatch):
    model = thinker(" P")
    whole = model.generate(ASK, temperature=0)
    monkeypatch.setattr("llmlab.inference.request.DEFAULT_MAX_TOKENS", 1)
    cut = model.generate(ASK, temperature=0)
    assert cut.finish_reason == "length"
    more = cut.continue_(max_tokens=24)
    assert more.text == whole.text
    assert more.reasoning == more.message.reasoning == whole.reasoning
    assert (
        more.prompt_token_ids[len(cut.prompt_token_ids) :][: cut.reasoning_tokens] == cut.choices[0].reasoning_token_ids
    )


def test_a_cut_thought_goes_on(thinker):
    prompt, options = "Tell me a story.", {"temperature": 0, "max_tokens": 6}
    whole = thinker("never").generate(prompt, temperature=0, max_tokens=18)
    part = thinker("never").generate(prompt, **options)
    for _ in range(2):
        part = part.continue_(max_tokens=6)
    assert (part.text, part.reasoning_tokens) == ("", 6)
    assert part.reasoning.split() == whole.reasoning.split()


@pytest.mark.parametrize("each", [2, 3, 5, 40])
def test_the_budget_of_a_cut_thought_is_for_all_of_it(thinker, each):
    prompt = "Tell me a story."
    whole = thinker(after="\n\n").generate(prompt, temperature=0, think=8, max_tokens=60)
    part = thinker(after="\n\n").generate(prompt, temperature=0, think=8, max_tokens=each)
    thought = part.reasoning_tokens
    while part.finish_reason == "length" and (thought < whole.reasoning_tokens or len(part.text) < len(whole.text)):
        part = part.continue_(max_tokens=each)
        thought += part.reasoning_tokens
    assert part.reasoning.split() == whole.reasoning.split()
    assert thought == whole.reasoning_tokens
    assert part.text.split()[:5] == whole.text.split()[:5]


def test_a_thought_that_never_ends_ends_with_the_limit(thinker):
    done = thinker("never").generate("Tell me a story.", temperature=0, max_tokens=12)
    assert (done.text, done.finish_reason, done.reasoning_tokens) == ("", "length", 12)


def test_the_default_limit_counts_the_answer(thinker, monkeypatch):
    monkeypatch.setattr("llmlab.inference.request.DEFAULT_MAX_TOKENS", 2)
    done = thinker(" P").generate(ASK, temperature=0)
    assert (done.finish_reason, len(done.token_ids)) == ("length", 2)


def test_long_thoughts_are_requested_in_pieces(thinker, monkeypatch):
    whole = thinker("never").generate("Tell me a story.", temperature=0, think=20, max_tokens=30)
    monkeypatch.setattr("llmlab.inference.thinking.PIECE_TOKENS", 4)
    assert thinker("never").generate("Tell me a story.", temperature=0, think=20, max_tokens=30).text == whole.text


def test_a_model_that_decides_itself_may_not_think(thinker):
    done = thinker(opens=False).generate(ASK, temperature=0)
    assert (done.text, done.reasoning) == ("The capital of France is Paris.", "")
    forced = thinker(" P", opens=False).generate(ASK, temperature=0, think=True)
    assert forced.reasoning == "is"


def test_think_off_is_the_answer_alone(thinker):
    done = thinker().generate(ASK, temperature=0, think=False)
    assert (done.text, done.reasoning) == ("The capital of France is Paris.", "")
    same = thinker().generate(ASK, temperature=0, template_kwargs={"enable_thinking": False})
    assert same.prompt_token_ids == done.prompt_token_ids


def test_a_turn_that_ends_inside_the_thought_still_gets_an_answer(thinker):
    done = thinker("never").generate(ASK, temperature=0, think=True, max_tokens=64)
    assert done.reasoning == "is Paris."
    assert not done.choices[0].reasoning_cut
    assert done.finish_reason in ("stop", "length")
    assert len(done.token_ids) > 0


def test_each_choice_thinks_for_itself(thinker):
    done = thinker(" P").generate(ASK, n=3, seed=1, temperature=1.0, max_tokens=16)
    assert len({choice.seed for choice in done.choices}) == 3
    again = thinker(" P").generate(ASK, n=3, seed=1, temperature=1.0, max_tokens=16)
    assert [(one.reasoning, one.text) for one in again.choices] == [(one.reasoning, one.text) for one in done.choices]


def test_a_cancel_during_the_thought_keeps_it(thinker):
    stream = thinker("never").stream("Tell me a story.", temperature=0)
    for chunk in stream:
        if chunk.reasoning:
            break
    stream.cancel()
    done = stream.result()
    assert done.finish_reason == "interrupted"
    assert done.text == ""
    assert done.reasoning


def test_both_engines_think_the_same(llamacpp, vllm, monkeypatch):
    monkeypatch.setattr(thoughts, "FAMILIES", (ThoughtFamily("test", "<think>", " P", after="", inside=""),))
    answers = []
    for model in (llamacpp, vllm):
        monkeypatch.setattr(model, "_facts", replace(model.facts, chat_template=model.facts.chat_template + SWITCH))
        answers += [
            [(one.reasoning, one.text) for one in model.generate([ASK, "Hello!"], temperature=0, max_tokens=32)]
        ]
    assert answers[0] == answers[1]


def test_options_without_effect_are_refused(llamacpp):
    with pytest.raises(UnsupportedError, match="doesn't reason"):
        llamacpp.generate("hi", think=True)
    with pytest.raises(BadInputError, match="raw=True"):
        llamacpp.generate("hi", raw=True, template_kwargs={"a": 1})
    with pytest.raises(BadInputError, match="template_kwargs must be a dict"):
        llamacpp.generate("hi", template_kwargs=["a"])


# -- with a scripted engine, whose tokens are bytes ------------------------------------------------

QWEN3 = (
    "{% if tools %}<tool_call></tool_call>{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}\n{% endfor %}"
    "<assistant>"
)


def delete_all() -> str:
    """Delete everything."""
    raise AssertionError


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_a_call_inside_the_thought_is_not_run(saying):
    # The script answers each request: the one that finds the mark is cancelled, the next writes the thought.
    model = saying("<think>", f"I could {call('delete_all')}. No.</think>", "Nothing to do.", template=QWEN3)
    done = model.generate("Clean up?", tools=[delete_all])
    assert not done.steps
    assert "delete_all" in done.reasoning
    assert done.text == "Nothing to do."


def test_a_thought_goes_back_to_a_template_that_reads_it(saying):
    model = saying("<think>", "12 + 30.</think>", call("add", a=12, b=30), "42.", template=QWEN3)
    done = model.generate("12 + 30?", tools=[add])
    assert [step.result for step in done.steps] == ["42"]
    assert done.text == "42."
    assert "<think>\n12 + 30.\n</think>" in model.asked.prompts[-1]
    assert done.turns[0].reasoning == "12 + 30."


def test_all_families_of_calls_are_read_from_the_answer_only():
    assert all(not family.read("").calls for family in CALLS)
