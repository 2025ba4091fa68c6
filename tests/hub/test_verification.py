"""`%llm models --check`: the catalogue's differences from the hub, on a hub whose files have moved."""

import pytest

from llmlab.errors import LoadError
from llmlab.hub import catalogue, verification
from llmlab.hub.catalogue import Entry
from llmlab.hub.quant_repo import QuantRepo
from llmlab.hub.spec import parse
from llmlab.loading.choice import choose
from llmlab.loading.forms import find
from llmlab.loading.retrieval import remote_header, resolve
from llmlab.loading.storage import pull
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO
from tests.hub.hubserver import Repo, folder_files

LIST = """
[[model]]
name = "small"
licence = "mit"
parameters = 5_246_208
[[model.files]]
engine = "llamacpp"
repo = "acme/small-GGUF"
file = "small-{quant_lower}.gguf"
quants = ["Q8_0", "Q4_0", "Q6_K"]
sizes = { Q4_0 = 9_000_000 }
projector = "mmproj-small.gguf"
[[model.files]]
engine = "vllm"
repo = "acme/small"
quants = ["bf16"]
gated = true
[[model.files]]
engine = "vllm"
repo = "acme/small-awq"
quants = ["awq"]
"""


@pytest.fixture
def hub(serve, tmp_path, monkeypatch):
    (tmp_path / "models.toml").write_text(LIST)
    monkeypatch.setenv("LLMLAB_MODELS", str(tmp_path / "models.toml"))
    files = {f"small-{quant}.gguf": to_gguf(NANO, quant=quant).read_bytes() for quant in ("Q8_0", "Q4_0")}
    # A projector has a tag in its name, too, and is no model.
    files["mmproj-small-Q8_0.gguf"] = b"x"
    return serve({"acme/small-GGUF": Repo(files), "acme/small": Repo(folder_files(NANO))})


def test_what_moved_is_found(hub):
    found = [(one.repo, one.what, one.text) for one in verification.verify([catalogue.get("small")])]
    assert found == [
        ("acme/small-GGUF", "missing", "mmproj-small.gguf isn't there"),
        ("acme/small-GGUF", "renamed", "small-q8_0.gguf is now small-Q8_0.gguf"),
        ("acme/small-GGUF", "renamed", "small-q4_0.gguf is now small-Q4_0.gguf"),
        ("acme/small-GGUF", "size", f"Q4_0 has {to_gguf(NANO, quant='Q4_0').stat().st_size:,} bytes, not 9,000,000"),
        ("acme/small-GGUF", "missing", "small-q6_k.gguf isn't there"),
        ("acme/small", "gated", "it is no longer gated"),
        ("acme/small-awq", "gone", f"There is no model 'acme/small-awq' on {hub.url}, or it is private."),
    ]
    assert verification.verify([catalogue.get("nano")]) == ()


def test_a_repository_that_has_another_name_is_found(serve):
    hub = serve({"acme/new": Repo(folder_files(NANO)), "acme/old": Repo(folder_files(NANO), renamed="acme/new")})
    entry = Entry("m", "", None, None, None, (QuantRepo("vllm", "acme/old", ("bf16",)),))
    assert [(one.what, one.text) for one in verification.verify([entry])] == [
        ("moved", "the repository is now acme/new")
    ]
    assert hub.requests


def test_a_hub_that_cannot_be_reached_is_an_error(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LoadError, match="can't be reached"):
        verification.verify(catalogue.entries())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LoadError, match="offline mode"):
        verification.verify(catalogue.entries())


def test_a_renamed_file_is_found_by_its_tag_and_said(hub, monkeypatch):
    pulled = pull("small", engine="llamacpp", quant="Q4_0")
    assert pulled.path.name == "small-Q4_0.gguf"
    assert pulled.source.way == "acme/small-GGUF has renamed small-q4_0.gguf to small-Q4_0.gguf"
    # It is found in the cache, without the hub.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("small", engine="llamacpp", quant="Q4_0").path == pulled.path
    assert not pull("small", engine="llamacpp", quant="Q4_0").fetched


def test_the_header_of_a_renamed_file_is_read(hub):
    spec = parse("small", "Q8_0")
    form = choose(spec, find(spec, engine="llamacpp"), engine="llamacpp")
    assert remote_header(form).quant == "Q8_0"


def test_a_file_that_is_gone_is_still_an_error(hub):
    with pytest.raises(Exception, match=r"small-q6_k\.gguf"):
        pull("small", engine="llamacpp", quant="Q6_K")
