"""The shared models behind a server, and a conversation that nano answers."""

import pytest

from llmlab.serving import start

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
SUM = [{"role": "user", "content": "What is 12 + 30?"}]
EXPRESSION = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
CALCULATOR = {"type": "function", "function": {"name": "calculator", "parameters": EXPRESSION}}


@pytest.fixture(scope="module")
def server(shared_lab):
    running = start(shared_lab, port=0)
    yield running
    running.stop()
