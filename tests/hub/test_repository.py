"""Downloads against a local server: the real client, the real cache, every refusal as one clear line."""

import dataclasses

import pytest

from llmlab.errors import BadInputError, LlmLabError, LoadError, UnknownNameError, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.hub.spec import parse
from llmlab.loading.forms import find
from llmlab.loading.retrieval import resolve
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO, llama_folder
from tests.hub.hubserver import COMMIT, HubServer, Repo, folder_files


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    small = llama_folder(tmp_path_factory.mktemp("small") / "small")
    q8, q4 = to_gguf(NANO, quant="Q8_0").read_bytes(), to_gguf(NANO, quant="Q4_0").read_bytes()
    repos = {
        "acme/nano": Repo(
            {**folder_files(NANO), "modeling.py": b"raise SystemExit", "original/consolidated.00.pth": b"x"}
        ),
        "acme/nano-GGUF": Repo({"nano-Q8_0.gguf": q8, "nano-Q4_0.gguf": q4, "README.md": b"hi"}),
        "acme/small": Repo(folder_files(small)),
        "acme/pickled": Repo({"config.json": b"{}", "pytorch_model.bin": b"x"}),
        "acme/broken": Repo({"broken-Q8_0.gguf": q8[:-5000]}),
        "acme/gated": Repo(status=401, code="GatedRepo"),
        "acme/limited": Repo(status=429),
        "acme/forbidden": Repo(status=403),
        "acme/down": Repo(status=500),
    }
    with HubServer(repos) as running:
        yield running


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server as the hub, with an empty cache."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    monkeypatch.setattr("llmlab.hub.failures.WAIT_S", 0.01)
    server.requests.clear()
    return server


def test_folder_is_downloaded_and_loads_like_the_original(hub):
    seen = []
    source = resolve("hf:acme/nano", engine="vllm", progress=lambda phase, part: seen.append((phase, part)))
    assert (source.name, source.format, source.quant) == ("nano", "safetensors", "bf16")
    assert (source.path / "model.safetensors").read_bytes() == (NANO / "model.safetensors").read_bytes()
    assert dataclasses.replace(read_header(source.path), path=NANO, files=(), name="") == dataclasses.replace(
        read_header(NANO), files=(), name=""
    )
    assert {phase for phase, _ in seen} == {"download"}
    assert seen[-1][1] == 1.0


def test_code_and_other_copies_are_not_downloaded(hub):
    resolve("hf:acme/nano", engine="vllm")
    assert not [asked for asked in hub.requests if "modeling.py" in asked or ".pth" in asked]


def test_gguf_by_tag_and_by_default(hub):
    assert resolve("hf:acme/nano-GGUF:q8_0").quant == "Q8_0"
    assert resolve("hf:acme/nano-GGUF", engine="llamacpp", quant="Q4_0").quant == "Q4_0"
    assert resolve("hf:acme/nano-GGUF").path.name == "nano-Q8_0.gguf"
    assert resolve("hf:acme/nano-GGUF@" + COMMIT, quant="Q8_0").path.is_file()


def test_peek_lists_without_downloading(hub):
    found = find(parse("hf:acme/nano-GGUF"))
    assert [(c.engine, c.quant, c.action) for c in found] == [
        ("llamacpp", "Q8_0", "download"),
        ("llamacpp", "Q4_0", "download"),
    ]
    assert found[0].bytes == to_gguf(NANO, quant="Q8_0").stat().st_size
    assert not [asked for asked in hub.requests if "/resolve/" in asked]


def test_what_is_cached_is_loaded_without_a_request(hub, monkeypatch):
    resolve("hf:acme/nano", engine="vllm")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("hf:acme/nano", engine="vllm").quant == "bf16"
    assert hub.requests == []
    with pytest.raises(LoadError, match="HF_HUB_OFFLINE is set"):
        resolve("hf:acme/small", engine="vllm")


def test_a_hub_that_is_gone_still_leaves_the_cache(hub, monkeypatch):
    resolve("hf:acme/nano-GGUF:Q8_0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve("hf:acme/nano-GGUF:Q8_0").quant == "Q8_0"
    with pytest.raises(LoadError, match="can't be reached"):
        resolve("hf:acme/small", engine="vllm")


def test_catalogue_alias_of_the_user_comes_from_the_hub(hub, tmp_path, monkeypatch):
    models = tmp_path / "models.toml"
    models.write_text(
        '[[model]]\nname = "mine"\nparameters = 5000000\n'
        '[[model.files]]\nengine = "llamacpp"\nrepo = "acme/nano-GGUF"\nfile = "nano-{quant}.gguf"\n'
        'quants = ["Q4_0", "Q8_0", "Q5_K_M"]\n'
        '[[model.files]]\nengine = "vllm"\nrepo = "acme/nano"\nquants = ["bf16"]\n'
    )
    monkeypatch.setenv("LLMLAB_MODELS", str(models))
    assert resolve("mine", engine="llamacpp").path.name == "nano-Q4_0.gguf"
    assert resolve("mine", engine="vllm").format == "safetensors"
    ready = {(c.engine, c.quant): c.action for c in find(parse("mine"))}
    assert ready[("llamacpp", "Q4_0")] == "ready"
    assert ready[("llamacpp", "Q8_0")] == "download"
    with pytest.raises(UnsupportedError, match=r"Q6_K.*Q4_0, Q8_0"):
        resolve("mine", engine="llamacpp", quant="Q6_K")
    with pytest.raises(UnknownNameError, match="nano-Q8_0"):  # the repository hasn't what the list says
        resolve("mine", engine="llamacpp", quant="Q5_K_M")


@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        ("hf:acme/nothing", BadInputError, "no model 'acme/nothing'"),
        ("hf:acme/nano@v9", BadInputError, "no revision 'v9'"),
        ("hf:acme/gated", LoadError, "is gated.*hf auth login"),
        ("hf:acme/forbidden", LoadError, "refuses.*403"),
        ("hf:acme/limited", LoadError, "429"),
        ("hf:acme/down", LoadError, "HTTP 500"),
        ("hf:acme/pickled", UnsupportedError, "pickle"),
        ("hf:acme/nano-GGUF:Q2_K", UnsupportedError, "no Q2_K form.*Q8_0, Q4_0"),
        ("hf:acme/nano-GGUF:Q9", UnknownNameError, "Unknown quant 'Q9'"),
        ("hf:acme/broken", LoadError, "truncated"),
        ("hf:acme", BadInputError, "hf:org/name"),
        ("hf:a b/c", BadInputError, "hf:org/name"),
    ],
)
def test_refusals_say_what_and_the_way_out(hub, spec, kind, says):
    with pytest.raises(kind, match=says) as caught:
        resolve(spec)
    text = str(caught.value)
    assert isinstance(caught.value, LlmLabError)
    assert "\n" not in text
    assert "hf_secret" not in text


def test_vllm_of_a_gguf_repository_is_refused(hub):
    with pytest.raises(UnsupportedError, match="no form for vllm"):
        resolve("hf:acme/nano-GGUF", engine="vllm")
