"""A job over a scripted model."""

import pytest

from llmlab.experiments import identity
from llmlab.jobs import job as jobs
from tests.scripted_engine import add


@pytest.fixture
def engine(lab, tmp_path):
    return add(lab, "echo", folder=tmp_path)


@pytest.fixture
def run(lab, tmp_path, engine, monkeypatch):
    """Run a job over the scripted model, in a folder of the test."""
    known = identity.Identity("echo", "llamacpp", "F16", "w", "t", "c", "1", 32768)
    monkeypatch.setattr(identity, "of_model", lambda _: known)  # its files don't exist

    def call(data, prompt="Say {{x}}", **given):
        known = {
            "model": None, "output": tmp_path / "out", "on": "local", "workers": None, "engine": "auto", "quant": None,
            "ctx": None, "adapter_column": None, "columns": None, "retries": 2, "shard_rows": 8, "fresh": False,
            "lab": lab, "progress": None, "system": None, "raw": False,
        }  # fmt: skip
        own = {name: given.pop(name) for name in list(given) if name in known}
        return jobs.run(data, prompt, **{**known, **own}, options=given)

    return call
