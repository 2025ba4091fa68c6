"""Quants that the catalogue doesn't list: whose is taken, and when the user must say."""

import pytest

import llmlab
from llmlab.errors import BadInputError, ChoiceError, LoadError, UnknownNameError, UnsupportedError
from llmlab.hub import catalogue, discover
from llmlab.hub.spec import parse
from llmlab.loading.choice import choose_engine
from llmlab.loading.retrieval import resolve
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO
from tests.hub.hubserver import COMMIT, Repo, folder_files

TREE = ("base_model:quantized:acme/nano", "gguf")


@pytest.fixture(scope="module")
def files():
    return {tag: to_gguf(NANO, quant=tag).read_bytes() for tag in ("Q8_0", "Q4_0", "Q5_0")}


@pytest.fixture
def hub(serve, files, tmp_path, monkeypatch):
    """acme's nano, quantized by itself, by a trusted author and by two strangers; in the user's list as `mine`."""
    models = tmp_path / "models.toml"
    models.write_text(
        'trusted = ["friend"]\n[[model]]\nname = "mine"\nbase = "acme/nano"\n'
        '[[model.files]]\nengine = "llamacpp"\nrepo = "acme/nano-GGUF"\nfile = "nano-{quant}.gguf"\nquants = ["Q8_0"]\n'
    )
    monkeypatch.setenv("LLMLAB_MODELS", str(models))
    gguf = {f"nano-{tag}.gguf": data for tag, data in files.items()}
    return serve(
        {
            "acme/nano": Repo(folder_files(NANO)),
            "acme/nano-GGUF": Repo({"nano-Q8_0.gguf": files["Q8_0"]}, tags=TREE, downloads=10),
            "friend/nano-GGUF": Repo(
                {"nano-Q4_0.gguf": files["Q4_0"], "mmproj-F16.gguf": b"x"}, tags=TREE, downloads=20
            ),
            "eve/nano-GGUF": Repo(gguf, tags=TREE, downloads=90_000, revisions=("main", "v1", COMMIT)),
            "mallory/nano-gguf": Repo({"nano-Q5_0.gguf": files["Q5_0"]}, tags=TREE, downloads=70),
            "eve/nano-mlx": Repo({"model.safetensors": b"x"}, tags=(*TREE, "mlx"), downloads=5),
            "eve/nano-AWQ": Repo({"model.safetensors": b"x", "config.json": b"{}"}, tags=TREE[:1], downloads=7),
            "eve/other-GGUF": Repo({"o-Q8_0.gguf": b"x"}, tags=("base_model:quantized:acme/other",), downloads=1),
        }
    )


def test_find_lists_the_tree_trusted_first_then_by_downloads(hub, files):
    found = discover.find("mine")
    assert [(o.repo, o.engine, o.quants, o.trusted) for o in found] == [
        ("acme/nano-GGUF", "llamacpp", ("Q8_0",), True),
        ("friend/nano-GGUF", "llamacpp", ("Q4_0",), True),
        ("eve/nano-GGUF", "llamacpp", ("Q8_0", "Q4_0", "Q5_0"), False),
        ("mallory/nano-gguf", "llamacpp", ("Q5_0",), False),
        ("eve/nano-AWQ", "vllm", ("awq",), False),
    ]
    assert found[2].sizes["Q4_0"] == len(files["Q4_0"])
    assert found[2].downloads == 90_000
    assert [o.repo for o in discover.find("hf:acme/nano", quant="q4_0")] == ["friend/nano-GGUF", "eve/nano-GGUF"]
    # A quantization's own base is looked up.
    assert [o.repo for o in discover.find("hf:mallory/nano-gguf", engine="vllm")] == ["eve/nano-AWQ"]


def test_a_trusted_author_s_is_taken_and_said(hub):
    source = resolve("mine", quant="Q4_0", engine="llamacpp")
    assert (source.name, source.quant) == ("mine", "Q4_0")
    assert "models--friend--nano-GGUF" in str(source.path)
    assert source.way == "files of friend/nano-GGUF (a trusted author; not in the catalogue)"
    assert choose_engine(parse("mine", "Q4_0"), "auto")[0] == "llamacpp"


def test_between_strangers_the_user_chooses(hub, files):
    with pytest.raises(ChoiceError) as caught:
        resolve("mine", quant="Q5_0", engine="llamacpp")
    said = str(caught.value)
    size = len(files["Q5_0"]) / 1e6
    assert f"eve/nano-GGUF ({size:.1f} MB, 90,000 downloads), mallory/nano-gguf" in said
    assert "--from AUTHOR or --from ORG/REPO" in said
    assert "\n" not in said
    assert [o.author for o in caught.value.offers] == ["eve", "mallory"]
    assert not [asked for asked in hub.requests if "/resolve/" in asked]
    assert "eve--" in str(resolve("mine", quant="Q5_0", engine="llamacpp", from_="Eve").path)
    with pytest.raises(ChoiceError):  # one stranger is no choice either
        resolve("hf:acme/nano", quant="awq", engine="vllm")


def test_from_a_repository_at_a_revision(hub):
    source = resolve("mine", quant="Q5_0", engine="llamacpp", from_="mallory/nano-gguf")
    assert "models--mallory" in str(source.path)
    assert source.way == "files of mallory/nano-gguf (requested; not in the catalogue)"
    pinned = resolve("mine", quant="Q4_0", engine="llamacpp", from_="eve/nano-GGUF@v1")
    assert any("/revision/v1" in asked or "/resolve/v1" in asked for asked in hub.requests)
    assert "models--eve" in str(pinned.path)
    assert resolve("mine", engine="llamacpp", from_="friend").quant == "Q4_0"  # the default of what it has
    with pytest.raises(UnsupportedError, match=r"mallory/nano-gguf has no Q4_0 .*It has Q5_0"):
        resolve("mine", quant="Q4_0", engine="llamacpp", from_="mallory/nano-gguf")


def test_from_goes_before_the_catalogue(hub):
    assert "models--eve" in str(resolve("mine", quant="Q8_0", engine="llamacpp", from_="eve").path)


def test_an_author_without_it_is_told_with_those_who_have_it(hub):
    with pytest.raises(UnknownNameError, match=r"Unknown author 'friend'.*Known: eve, mallory"):
        resolve("mine", quant="Q5_0", engine="llamacpp", from_="friend")
    with pytest.raises(BadInputError, match="is a local model"):
        resolve("nano", engine="llamacpp", from_="eve")


def test_nobody_has_it(hub):
    with pytest.raises(UnsupportedError, match=r"mine has no Q2_K form.*llamacpp: Q8_0.*model tree has none"):
        resolve("mine", quant="Q2_K", engine="llamacpp")


def test_a_repository_without_gguf_gets_one_for_llamacpp(hub):
    source = resolve("hf:acme/nano", engine="llamacpp")
    assert "models--acme--nano-GGUF" in str(source.path)
    assert source.quant == "Q8_0"


def test_what_was_chosen_is_found_again_without_the_hub(hub, monkeypatch):
    first = resolve("mine", quant="Q5_0", engine="llamacpp", from_="eve")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("mine", quant="Q5_0", engine="llamacpp").path == first.path
    with pytest.raises(UnsupportedError, match=r"no Q4_0 form.*offline mode"):
        resolve("mine", quant="Q4_0", engine="llamacpp")
    assert hub.requests == []


def test_a_hub_that_fails_leaves_what_the_catalogue_says(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnsupportedError, match=r"no Q4_0 form.*Available: llamacpp: Q8_0.*could not be searched"):
        resolve("mine", quant="Q4_0", engine="llamacpp")


def test_nothing_waits_for_a_hub_that_cannot_answer(hub, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.repos["acme/nano"].passing = [(429, 3600)]
    with pytest.raises(LoadError, match=r"HTTP 429.*Wait 3600 seconds"):
        discover.find("mine")
    assert len(hub.requests) == 1
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LoadError, match="can't be reached"):
        discover.find("mine")
    # The client's own retries would be 23 s; the test server's pauses count too.
    assert sum(waits) < 1


@pytest.mark.parametrize("change", [{"gated": True}, {"status": 401, "code": "RepoNotFound"}], ids=str)
def test_a_base_that_cannot_be_read_still_has_a_tree(hub, change):
    for name, value in change.items():
        setattr(hub.repos["acme/nano"], name, value)
    assert discover.find("mine", quant="Q4_0")[0].repo == "friend/nano-GGUF"


def test_load_and_pull_take_from(hub, lab):
    pulled = llmlab.pull("mine", quant="q5_0", from_="mallory", progress=lambda *_: None)
    assert (pulled.engine, pulled.source.quant, pulled.fetched) == ("llamacpp", "Q5_0", True)
    assert not llmlab.pull("mine", quant="Q5_0", from_="mallory", progress=lambda *_: None).fetched
    model = lab.load("mine", quant="Q4_0", from_="friend")
    assert model.name == "mine"
    assert model.quant == "Q4_0"
    assert "friend/nano-GGUF (a trusted author" in model.reason
    assert model.generate("What is the capital of France?", max_tokens=4).text


def test_the_users_trusted_authors_go_first(hub):
    assert catalogue.trusted()[0] == "friend"
    assert "bartowski" in catalogue.trusted()
    assert catalogue.get("mine").base_repo == "acme/nano"
    assert catalogue.get("qwen3-4b").base_repo == "Qwen/Qwen3-4B"
    assert catalogue.get("gpt-oss-20b").base_repo == "openai/gpt-oss-20b"
