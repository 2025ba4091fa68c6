"""Experiments on nano, each test with answers of its own."""

import pytest

import llmlab

COUNTRIES = [
    {"country": "France", "answer": "Paris"},
    {"country": "Italy", "answer": "Rome"},
    {"country": "Japan", "answer": "Tokyo"},
    {"country": "Peru", "answer": "Lima"},
]
SHORT = [{"temperature": 0, "max_tokens": 16}]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of the test's own."""
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def declare(data, lab):
    """Declares an experiment on nano in llama.cpp."""

    def make(name="capitals", **options):
        given = {
            "prompts": ["What is the capital of {{country}}?"],
            "data": COUNTRIES,
            "models": ["nano"],
            "engines": ["llamacpp"],
            "params": SHORT,
            "scorers": ["contains", "tokens"],
            "lab": lab,
        }
        return llmlab.experiment(name, **{**given, **options})

    return make
