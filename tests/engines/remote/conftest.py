"""Scripted servers, the real llama-server, and llmlab's own server over the shared models."""

import importlib.util
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmlab.engines.remote import client
from llmlab.serving import start
from tests.engines.remote.scripted_server import MODELS, ScriptedServer


@pytest.fixture
def scripted(monkeypatch):
    """A function that starts a scripted server with routes; retries don't wait."""
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.0)
    running = []

    def make(chat=None, **routes):
        more = {f"/{name}": route for name, route in routes.items()}
        running.append(ScriptedServer({"/v1/models": MODELS, "/v1/chat/completions": chat, **more}))
        return running[-1]

    yield make
    for server in running:
        server.close()


@pytest.fixture(scope="module")
def served(shared_lab):
    """llmlab's own server over the shared models."""
    server = start(shared_lab, port=0)
    yield server
    server.stop()


@contextmanager
def llama_server(path, template=None):
    """The real llama-server; yields its address."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp isn't installed: pip install --no-deps xllamacpp")
    command = [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(path)]
    running = subprocess.Popen(
        [*command, *([str(template)] if template else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        url = next((line.split()[1] for line in running.stdout if line.startswith("URL ")), None)
        assert url is not None, "llama-server didn't start"
        yield url
    finally:
        running.stdin.close()
        running.stdout.close()
        running.wait(60)


@pytest.fixture(scope="session")
def llama_url(llamacpp):
    """The real llama-server on nano."""
    with llama_server(llamacpp.path) as url:
        yield url
