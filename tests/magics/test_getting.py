"""`%llm pull`, `models`, `rm`, `show` of what lies on the hub: a real shell against a local server."""

import builtins
import signal
from dataclasses import replace

import pytest

from llmlab.display.files import Catalogue
from llmlab.hub import catalogue
from llmlab.magics.completion import complete
from llmlab.quant.gguf_cache import to_gguf
from llmlab.zoo import path as zoo_path
from tests.hub.hubserver import HubServer, Repo, folder_files

NANO = zoo_path("nano")
TREE = ("base_model:quantized:acme/nano",)


@pytest.fixture(scope="module")
def files():
    return {tag: to_gguf(NANO, quant=tag).read_bytes() for tag in ("Q8_0", "Q4_0")}


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    models = tmp_path / "models.toml"
    models.write_text(
        '[[model]]\nname = "mine"\nbase = "acme/nano"\nparameters = 5000000\n'
        '[[model.files]]\nengine = "llamacpp"\nrepo = "acme/nano-GGUF"\nfile = "nano-{quant}.gguf"\nquants = ["Q8_0"]\n'
    )
    repos = {
        "acme/nano": Repo(folder_files(NANO)),
        "acme/nano-GGUF": Repo({"nano-Q8_0.gguf": files["Q8_0"]}, tags=TREE, downloads=10),
        "eve/nano-GGUF": Repo({"nano-Q4_0.gguf": files["Q4_0"]}, tags=TREE, downloads=90_000),
        "acme/gated": Repo(gated=True),
    }
    with HubServer(repos) as server:
        monkeypatch.setenv("LLMLAB_MODELS", str(models))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("llmlab.hub.failures.WAIT_S", 0.01)
        yield server


def test_pull_says_what_came_and_the_second_time_that_it_is_here(bench, hub, files):
    ran = bench.run("p = %llm pull mine --quant Q8_0")
    assert ran.success, ran.out
    view = bench.shell.user_ns["p"]
    assert view.path.read_bytes() == files["Q8_0"]
    assert "mine · llamacpp · Q8_0" in repr(view)
    assert "checksums verified" in repr(view)
    again = bench.run("%llm pull mine --quant Q8_0")
    assert "already on this machine" in repr(again.result)


def test_pull_shows_one_bar_that_becomes_one_line(bench, hub):
    hub.repos["acme/nano-GGUF"].pause = 0.01
    ran = bench.run("%llm pull mine")
    shown = [display["data"]["text/plain"] for display in ran.displays]
    assert any("pulling mine: download" in text and "%" in text for text in shown)
    assert "mine · llamacpp · Q8_0" in shown[-1]


def test_an_interrupted_pull_says_what_is_kept(bench, hub, monkeypatch):
    hub.repos["acme/nano-GGUF"].pause = 0.01
    from llmlab.display import live

    call = live.ProgressBar.__call__

    def press(self, phase, fraction):
        call(self, phase, fraction)
        if fraction is not None and fraction > 0.5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(live.ProgressBar, "__call__", press)
    ran = bench.run("%llm pull mine")
    assert not ran.success
    assert ran.out.strip() == "Interrupted: the partial download was kept. Pull or load again to resume it."
    monkeypatch.setattr(live.ProgressBar, "__call__", call)
    assert "partial download" in repr(bench.run("%llm models --disk").result)
    assert bench.run("%llm pull mine").success
    assert len([asked for asked in hub.ranges if not asked.startswith("bytes=0-")]) == 1


def test_strangers_are_shown_and_one_must_be_chosen(bench, hub):
    line = bench.fails("%llm pull mine --quant Q4_0")
    assert "No author trusted by default" in line
    assert "--from AUTHOR" in line
    ran = bench.run("%llm pull mine --quant Q4_0")
    assert any("eve/nano-GGUF" in display["data"].get("text/html", "") for display in ran.displays)
    assert "eve/nano-GGUF" in bench.fails("%llm load mine --quant Q4_0 --engine llamacpp")
    ran = bench.run("%llm pull mine --quant Q4_0 --from eve")
    assert "files of eve/nano-GGUF (requested; not in the catalogue)" in repr(ran.result)


def test_refusals_are_one_line(bench, hub):
    assert "is gated" in bench.fails("%llm pull hf:acme/gated --engine vllm")
    assert "no model 'acme/none'" in bench.fails("%llm pull hf:acme/none --engine vllm")


def test_models_lists_the_catalogue_and_the_disk(bench, hub):
    empty = bench.run("%llm models --disk").result
    assert repr(empty).startswith("No cached models")
    bench.run("%llm pull mine")
    listed = bench.run("%llm models").result
    assert "mine" in [entry.name for entry in listed]
    assert "on disk" in repr(listed)
    assert [(one.name, one.quant) for one in listed.on_disk] == [("mine", "Q8_0")]
    assert "today" in listed.on_disk._repr_html_()


def test_rm_asks_and_deletes_only_on_yes(bench, hub, monkeypatch):
    bench.run("%llm pull mine")
    monkeypatch.setattr(builtins, "input", lambda prompt: "n")
    assert repr(bench.run("%llm rm mine").result) == "Nothing was deleted."
    assert len(bench.run("%llm models --disk").result) == 1
    asked = []
    monkeypatch.setattr(builtins, "input", lambda prompt: asked.append(prompt) or "y")
    ran = bench.run("%llm rm mine")
    assert repr(ran.result).startswith("Deleted mine Q8_0: 5.")
    assert repr(ran.result).endswith("MB freed.")
    assert asked[0].startswith("Delete these (5.")
    assert len(bench.run("%llm models --disk").result) == 0


def test_rm_headless_needs_yes(bench, hub):
    bench.run("%llm pull mine")
    assert "--yes" in bench.fails("%llm rm mine")
    assert bench.run("%llm rm mine --quant Q8_0 --yes").success
    assert "The caches have no files of mine" in bench.fails("%llm rm mine --yes")


def test_rm_refuses_what_is_loaded(bench, hub):
    bench.run("p = %llm pull mine")
    bench.add("mine")
    model = bench.lab.get("mine")
    model.plan = replace(model.plan, source=replace(model.source, path=bench.shell.user_ns["p"].path))
    assert "Unload it first: %llm unload mine" in bench.fails("%llm rm mine --yes")


def test_show_reads_headers_on_the_hub(bench, hub):
    view = bench.run("%llm show mine --quant Q8_0").result
    assert (view.header.quant, view.header.context_length) == ("Q8_0", 2048)
    assert hub.sent["nano-Q8_0.gguf"] < 400_000
    both = bench.run("%llm show mine").result
    assert both.header.architecture == "llama"
    assert [form.quant for form in both.forms] == ["Q8_0"]
    assert "chat template" in repr(both)


def test_show_without_the_hub_says_what_the_catalogue_does(bench, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    view = bench.run("%llm show mine").result
    assert [form.quant for form in view] == ["Q8_0"]
    assert "can't be reached" in repr(view)


def test_show_discover_lists_by_author(bench, hub):
    offers = bench.run("%llm show mine --discover").result
    assert [offer.author for offer in offers] == ["acme", "eve"]
    assert "90,000" in repr(offers)
    assert [offer.author for offer in bench.run("%llm show mine --discover --quant Q4_0").result] == ["eve"]


def test_completion(bench, hub):
    def offered(line):
        return {text for text, _ in complete(line, 0, len(line), bench)[1]}

    assert "mine" in offered("%llm pull m")
    assert {"bartowski", "unsloth"} <= offered("%llm load mine --from ")
    assert "Q8_0" in offered("%llm pull mine --quant Q")
    assert offered("%llm rm ") == {"--quant", "--yes"}
    bench.run("%llm pull mine")
    assert "mine" in offered("%llm rm ")
    assert "pull" in offered("%llm pu")


def test_models_check_shows_what_has_moved(bench, hub):
    hub.repos["acme/nano-GGUF"].files["nano-q8_0.gguf"] = hub.repos["acme/nano-GGUF"].files.pop("nano-Q8_0.gguf")
    from llmlab.hub import catalogue

    listed = catalogue.find("mine")
    shown = bench.run("found = %llm models --check")
    assert shown.success, shown.out
    view = bench.shell.user_ns["found"]
    own = {one.what: one.text for one in view if one.model == listed.name}
    assert own["renamed"] == "nano-Q8_0.gguf is now nano-q8_0.gguf"
    assert own.keys() == {"renamed", "size"}
    assert {one.what for one in view if one.model != listed.name} == {"gone"}
    assert f"{view.checked} repositories checked" in view.text()
    assert "nano-Q8_0.gguf is now" in view.html()


def test_a_file_of_an_installed_package_is_listed_as_local(monkeypatch, tmp_path):
    entry = catalogue.find("smollm2-135m")
    monkeypatch.setattr(catalogue.Packaged, "path", lambda self: tmp_path)
    assert "Q4_1 (local), " in Catalogue([entry]).text()
    monkeypatch.setattr(catalogue.Packaged, "path", lambda self: None)
    assert "local)" not in Catalogue([entry]).text()
