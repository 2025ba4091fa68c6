"""Families whose marks are special tokens, which engines leave out of the text: played from a script of tokens."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from llmlab.guided.request import Constraint
from llmlab.types import SamplingParams, Trace
from tests.scripted_engine import ScriptedEngine, scripted_model

HARMONY = (
    "{# <|channel|>analysis <|call|> tools reasoning_effort #}{% for m in messages %}<|start|>{{ m.role }}<|message|>"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}{{ m.content }}<|end|>{% endfor %}"
    "<|start|>assistant"
)
MARKS = [
    "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>", "<|channel>",
    "<channel|>", "[THINK]", "[/THINK]", "<think>", "</think>",
]  # fmt: skip
SPLIT = re.compile("(" + "|".join(map(re.escape, MARKS)) + ")")
END = 300 + MARKS.index("<|return|>")
CALL = 300 + MARKS.index("<|call|>")


class Played(ScriptedEngine):
    """Plays a text of tokens: each request goes on where its prompt ends. Letters are tokens, and so is each mark."""

    def __init__(self, template: str, script: str, *later: str) -> None:
        super().__init__(template=template)
        self.facts = type(self.facts)("x", 1, 4096, 4096, 400, template, {}, (END, CALL), False, SamplingParams())
        self.scripts = [self.tokenize(one) for one in (script, *later)]
        self.base: list[int] | None = None
        self.asked: list[str] = []

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        out: list[int] = []
        for part in SPLIT.split(text) if special else [text]:
            out += [300 + MARKS.index(part)] if special and part in MARKS else [ord(c) % 256 for c in part]
        return out

    def detokenize(self, ids: list[int]) -> str:
        return "".join(chr(i) for i in ids if i < 256)

    def submit(self, request):
        prompt = list(request.prompt_ids)
        self.asked.append("".join(MARKS[i - 300] if i >= 300 else chr(i) for i in prompt))
        if self.base is None or prompt[: len(self.base)] != self.base:
            self.base = prompt
            self.script = self.scripts.pop(0)
        done = prompt[len(self.base) :]
        if done != self.script[: len(done)]:  # the thought was closed for the model: it plays its next text
            self.base, self.script, done = prompt, self.scripts.pop(0), []
        for token in self.script[len(done) :][: request.params.max_tokens]:
            end = token in (*self.facts.end_ids, *request.ends)
            request.buffer.push("" if end or token >= 256 else chr(token), (token,), index=request.index)
            if end or request.buffer.done:
                break
        else:
            request.buffer.finish("length", index=request.index)
            return
        request.buffer.finish("stop", index=request.index)

    def cancel(self, request):
        request.buffer.finish("interrupted", index=request.index)


def played(tmp_path, template, *scripts):
    engine = Played(template, *scripts)
    model = scripted_model(engine, tmp_path, "oss")
    model.played = engine
    return model


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


ANSWER = "<|channel|>analysis<|message|>Hm, easy.<|end|><|start|>assistant<|channel|>final<|message|>It is 3.<|return|>"
THOUGHT = "<|channel|>analysis<|message|>A call.<|end|><|start|>assistant"
CALLS = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>'


def test_gpt_oss_thinks_in_a_channel_of_its_own(tmp_path):
    done = played(tmp_path, HARMONY, ANSWER).generate("1 + 2?")
    assert (done.reasoning, done.text, done.finish_reason) == ("Hm, easy.", "It is 3.", "stop")


def test_gpt_oss_may_answer_at_once(tmp_path):
    done = played(tmp_path, HARMONY, "<|channel|>final<|message|>3.<|return|>").generate("1 + 2?")
    assert (done.reasoning, done.text) == ("", "3.")


def test_gpt_oss_calls_a_tool_from_the_commentary(tmp_path):
    model = played(tmp_path, HARMONY, THOUGHT + CALLS, ANSWER)
    done = model.generate("1 + 2?", tools=[add])
    assert [(step.name, step.result) for step in done.steps] == [("add", "3")]
    assert done.text == "It is 3."
    assert done.reasoning == "Hm, easy."


def test_a_preamble_before_a_call_is_said(tmp_path):
    preamble = "<|channel|>commentary<|message|>Let me add.<|end|><|start|>assistant"
    model = played(tmp_path, HARMONY, preamble + CALLS, ANSWER)
    done = model.generate("1 + 2?", tools=[add])
    assert [step.result for step in done.steps] == ["3"]
    assert done.turns[0].content == "Let me add."


def test_a_budget_closes_the_channel(tmp_path):
    model = played(tmp_path, HARMONY, ANSWER, "Three.<|return|>")
    done = model.generate("1 + 2?", think=13)
    assert done.text == "Three."
    assert done.choices[0].reasoning_cut
    assert model.played.asked[-1].endswith("<|end|><|start|>assistant<|channel|>final<|message|>")


@pytest.mark.parametrize(
    ("mark", "script"),
    [
        ("<|channel>", "<|channel>thought\nHm.<channel|>Yes.<|return|>"),
        ("[THINK]", "[THINK]Hm.[/THINK]Yes.<|return|>"),
        ("<think>", "<think>\nHm.\n</think>\n\nYes.<|return|>"),
    ],
)
def test_hidden_marks_are_found_by_their_tokens(tmp_path, mark, script):
    template = "{# " + mark + " #}{% for m in messages %}{{ m.content }}{% endfor %}"
    done = played(tmp_path, template, script).generate("Really?")
    assert (done.reasoning, done.text) == ("Hm.", "Yes.")
    plain = played(tmp_path, template, "Yes.<|return|>").generate("Really?")
    assert (plain.reasoning, plain.text) == ("", "Yes.")


def test_strict_names_the_channel_after_the_thought(tmp_path, monkeypatch):
    """The constraint covers the channel's name, and the name isn't a part of the answer."""
    # The script is played as it is: no masks.
    monkeypatch.setattr(Constraint, "ready", lambda self, *_, **__: replace(self, traces=(Trace(),)))
    call = "A call.<|end|><|start|>assistant" + CALLS
    answer = "Fine.<|end|><|start|>assistant<|channel|>final<|message|>It is 3.<|return|>"
    model = played(tmp_path, HARMONY, call, answer)
    done = model.generate("1 + 2?", tools=[add], strict=True, max_tokens=200)
    assert [(step.name, step.result) for step in done.steps] == [("add", "3")]
    assert (done.reasoning, done.text) == ("Fine.", "It is 3.")
    assert done.turns[0].content == ""
    assert all("<|channel|>final" not in one for one in model.played.asked)
