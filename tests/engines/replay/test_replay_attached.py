"""A model of a server under record and replay: without the server."""

import json

import pytest

import llmlab
from llmlab.errors import NotRecordedError
from llmlab.serving import start

PROMPT = "What is the capital of France?"


@pytest.fixture
def recorded(llamacpp, shared_lab, lab, tmp_path):
    """Answers of a server that is gone, and their file."""
    server = start(shared_lab, port=0)
    path = tmp_path / "answers.jsonl"
    try:
        with llmlab.record_answers(path):
            far = lab.attach(server.url, name="far", model="llamacpp")
            answers = [far.generate(PROMPT, temperature=0), far.generate("Tell me a story.", max_tokens=8)]
            prompt = far.stream(PROMPT, temperature=0).reading().text
    finally:
        lab.unload("far")
        server.stop()
    return path, server.url, answers, prompt


def test_a_server_that_is_gone_answers_as_it_did(recorded, lab):
    path, url, (greedy, drawn), prompt = recorded
    text = path.read_text("utf-8")
    assert url not in text
    assert url.rpartition(":")[2] not in json.loads(text.splitlines()[1])["spec"]
    with llmlab.replay_answers(path):
        far = lab.attach(url, name="far", model="llamacpp")
        nameless = lab.attach("http://127.0.0.1:1")
        with pytest.raises(NotRecordedError, match=r"far \(llamacpp\)"):
            lab.attach(url, model="other")
    assert nameless.name == "far"
    again = [nameless.generate(PROMPT, temperature=0), nameless.generate("Tell me a story.", max_tokens=8)]
    assert [one.text for one in again] == [greedy.text, drawn.text]
    assert again[0].usage == greedy.usage
    assert again[0].timings.replayed
    assert nameless.stream(PROMPT, temperature=0).reading().text == prompt
    assert (nameless.engine, nameless.replays, far.loaded) == ("remote", "answers.jsonl", False)
    with pytest.raises(NotRecordedError, match="messages"):
        nameless.generate("What is the capital of Italy?", temperature=0)


def test_an_experiment_with_an_attached_model_is_replayed(recorded, llamacpp, shared_lab, lab, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path / "data"))
    path, url, *_ = recorded

    def declare(data):
        monkeypatch.setenv("LLMLAB_DATA", str(tmp_path / data))
        return llmlab.experiment(
            "attached", prompts=[PROMPT], models=["far"], params=[{"temperature": 0}], scorers=["tokens"], lab=lab
        )

    server = start(shared_lab, port=0)
    try:
        with llmlab.record_answers(path):
            lab.attach(server.url, name="far", model="llamacpp")
            texts = list(declare("one").run().frame["text"])
    finally:
        lab.unload("far")
        server.stop()
    with llmlab.replay_answers(path):
        lab.attach(url, name="far")
        exp = declare("two").run()
    assert exp.computed == 1
    assert list(exp.frame["text"]) == texts
    assert list(exp.frame["error"]) == [""]
