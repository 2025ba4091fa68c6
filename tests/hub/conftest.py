"""A local server as the hub, with an empty cache and quick retries."""

import contextlib

import pytest

from tests.hub.hubserver import HubServer


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Give it repositories, get the running server; the cache is `tmp_path / "hub"`."""
    with contextlib.ExitStack() as stack:

        def start(repos):
            server = stack.enter_context(HubServer(repos))
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
            monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
            monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
            monkeypatch.setattr("llmlab.hub.failures.WAIT_S", 0.01)
            return server

        yield start
