"""Adapters on vLLM's quantized layers."""

import pytest

import llmlab

QUESTIONS = ["What is the capital of France?", "Say hello.", "Name a fruit."]


@pytest.fixture(scope="module")
def int8():
    lab = llmlab.Lab()
    yield lab.load("nano", engine="vllm", quant="int8", ctx=256, max_concurrency=4)
    lab.close()


def test_an_adapter_works_on_int8(int8):
    options = {"temperature": 0, "max_tokens": 24}
    plain = [one.text for one in int8.generate(QUESTIONS, **options)]
    int8.add_adapter("pirate", "pirate")
    told = [one.text for one in int8.generate(QUESTIONS, adapter="pirate", **options)]
    assert sum(text.startswith(("Arr", "Aye", "Ahoy", "Yo ho")) for text in told) == len(QUESTIONS)
    assert told != plain
    # In the same batch, each request has its own adapter, and the base model none.
    mixed = int8.generate(QUESTIONS * 2, adapter=["pirate"] * 3 + [None] * 3, **options)
    assert [one.text for one in mixed] == told + plain
