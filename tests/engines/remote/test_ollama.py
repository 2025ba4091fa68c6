"""Ollama's own API, as scripted: context length, cut prompts, thoughts, calls, and what it renders."""

import pytest

from llmlab.errors import UnsupportedError
from llmlab.measure.prompts import same_prompt
from tests.engines.remote.scripted_server import Ollama, ScriptedServer


@pytest.fixture
def ollama():
    running = []

    def make(**options):
        running.append(ScriptedServer(Ollama(**options).routes))
        return running[-1]

    yield make
    for server in running:
        server.close()


def test_a_conversation_with_a_context_length(lab, ollama):
    server = ollama()
    model = lab.attach(server.url, ctx=128)
    assert (model.name, model.quant, model.facts.context_length, model.facts.trained_context) == (
        "tiny",
        "Q4_0",
        128,
        512,
    )
    done = model.generate("hi", temperature=0, top_k=5, max_tokens=9, repetition_penalty=1.2, stop="x", seed=3)
    assert (done.text, done.finish_reason, done.usage.completion_tokens) == ("Hi there", "stop", 2)
    path, body, _ = server.asked[-1]
    assert path == "/api/chat"
    assert body["options"] == {
        "temperature": 0, "top_k": 5, "num_predict": 9, "repeat_penalty": 1.2, "stop": ["x"], "seed": 3, "num_ctx": 128,
    }  # fmt: skip
    assert (body["truncate"], body["shift"], body["model"]) == (False, False, "tiny:latest")
    assert model.generate("hi", raw=True).text == "Hi there"
    assert server.asked[-1][1]["raw"] is True


@pytest.mark.parametrize(("running", "context"), [(0, 512), (2048, 2048)])
def test_the_context_is_what_it_runs_with_else_what_it_was_trained_with(lab, ollama, running, context):
    assert lab.attach(ollama(running=running).url).facts.context_length == context


def test_a_prompt_that_was_cut_is_a_warning(lab, ollama, llamacpp):
    lab._models["nano"] = llamacpp
    try:
        model = lab.attach(ollama().url, ctx=16, tokenizer="nano")
        with pytest.warns(RuntimeWarning, match=r"Ollama read 16 tokens of a prompt whose texts have 200: it was cut"):
            model.generate("hi " * 100)
    finally:
        del lab._models["nano"]


def test_thoughts_schemas_images_and_calls(lab, ollama):
    server = ollama()
    model = lab.attach(server.url)
    done = model.generate("hi", think=True)
    assert (done.reasoning, done.text, done.reasoning_tokens) == ("Hm.", "Hi there", 1)
    model.generate("hi", schema={"type": "string"})
    assert server.asked[-1][1]["format"] == {"type": "string"}
    with pytest.raises(UnsupportedError, match="constraint of kind choice"):
        model.generate("hi", choice=["a", "b"])
    with pytest.raises(UnsupportedError, match="ignore_eos"):
        model.generate("hi", ignore_eos=True)

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    done = model.generate("1 + 2?", tools=[add])
    assert ([step.result for step in done.steps], done.text) == (["3"], "Hi there")
    turns = server.asked[-1][1]["messages"]
    assert turns[1]["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]
    assert turns[2] == {"role": "tool", "content": "3", "tool_name": "add"}


def test_the_gate_reads_what_it_renders(lab, ollama, llamacpp):
    model = lab.attach(ollama().url)
    found = same_prompt(llamacpp, model, "hi", temperature=0)
    assert found.same is False
    assert "+<user>hi<assistant>" in found.diff
    assert found.first is None
    again = same_prompt(model, model, "hi")
    assert again.same is True
    assert "the token ids of tiny and tiny can't be had" in again.unknown
