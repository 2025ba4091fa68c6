"""A model split over two processes on the CPU: tensor parallel, without a GPU."""

import pytest

from llmlab.errors import UnsupportedError
from llmlab.machine import cores


# vLLM's two processes wait for each other by yielding: where others take the cores, a load took more than 300 s.
@pytest.mark.timeout(1200)
@pytest.mark.skipif(cores.usable() < 2, reason="two processes need two cores")
def test_two_processes_write_the_same_text_as_one(lab):
    questions = ["What is the capital of France?", "What language is spoken in Brazil?", "Tell me about Japan."]
    one = lab.load("nano", engine="vllm", name="one", ctx=256, extra={"dtype": "float32"})
    texts = [answer.text for answer in one.generate(questions, temperature=0, max_tokens=24)]
    two = lab.load("nano", engine="vllm", name="two", ctx=256, tp=2)
    assert [answer.text for answer in two.generate(questions, temperature=0, max_tokens=24)] == texts
    assert two.describe()["runs"] == "in a child process"
    assert two.memory().device == "CPU"
    two.unload()


def test_what_cannot_be_split_is_refused_before_anything_starts(lab, monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: 2)
    for options, expected in (
        ({"tp": 64}, "as many CPU cores"),
        ({"pp": 2}, "only --tp splits"),
        ({"tp": 2, "lora": 2}, "Adapters weren't tried"),
    ):
        with pytest.raises(UnsupportedError, match=expected):
            lab.load("nano", engine="vllm", **options)
    assert not lab.models
