"""Adapters from the hub: the real client against a local server."""

import pytest

from llmlab.adapters import files as reading
from llmlab.adapters import source
from llmlab.errors import UnknownNameError, UnsupportedError
from tests.hub.hubserver import HubServer, Repo


@pytest.fixture
def hub(folders, tmp_path, monkeypatch):
    files = {one.name: one.read_bytes() for one in folders["a"].iterdir()}
    repos = {
        "acme/peft": Repo({**files, "checkpoint.bin": b"x"}),
        "acme/pickled": Repo({"adapter_config.json": files["adapter_config.json"], "adapter_model.bin": b"x"}),
        "acme/other": Repo({"notes.txt": b"x"}),
    }
    with HubServer(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        yield running


def test_a_peft_repository(hub, folders):
    folder = source.find("hf:acme/peft")
    assert reading.read(folder).digest == reading.read(folders["a"]).digest
    assert not (folder / "checkpoint.bin").exists()


def test_refusals(hub):
    with pytest.raises(UnsupportedError, match="pickle"):
        source.find("hf:acme/pickled")
    with pytest.raises(UnknownNameError):
        source.find("hf:acme/other")
