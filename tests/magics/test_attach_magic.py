"""`%llm attach`, and what the other commands say of an attached model."""

import pytest

from llmlab.session import Lab
from tests.engines.remote.conftest import scripted  # noqa: F401 - a fixture
from tests.engines.remote.scripted_server import says, status


def test_attaching_asking_and_detaching(bench, scripted, monkeypatch):  # noqa: F811
    monkeypatch.setenv("FAR_KEY", "sk-secret-1234")
    url = scripted(says("Hi", " there")).url
    bench.run(f"url = {url!r}")
    ran = bench.run("%llm attach $url --as far --key-env FAR_KEY --prices 1,2")
    assert (ran.result.name, ran.result.engine, ran.result.url) == ("far", "remote", f"{url}/v1")
    assert bench.lab.current is ran.result
    listed = bench.run("%llm ls").result.text()
    assert "far   remote" in listed
    assert url.removeprefix("http://") in listed
    shown = bench.run("%llm show far").result
    assert "in FAR_KEY" in shown.text()
    assert "refused" in shown.text()
    assert bench.run("%%llm\nhello").result.text == "Hi there"
    assert bench.run("%%llm -c\nand you?").result.text == "Hi there"
    assert "$0.0000" in bench.run("%llm ls -v").result.text()
    assert bench.run("%llm unload").result.text() == "Unloaded far."
    everything = "\n".join([ran.out, listed, shown.html(), str(bench.lab.logs()), repr(ran.result), repr(ran.displays)])
    assert "sk-secret" not in everything


CLEAN = [
    ("%llm attach", "needs|required|URL"),
    ("%llm attach http://127.0.0.1:9", "can't be reached"),
    ("%llm attach http://127.0.0.1:9 --prices 1", "--prices takes IN,OUT"),
    ("%llm attach http://127.0.0.1:9 --key-env NO_SUCH_KEY_HERE", "no key in the environment variable"),
    ("%llm load nano --engine remote", "auto|attach"),
]


@pytest.mark.parametrize(("cell", "problem"), CLEAN)
def test_errors_are_one_clean_line(bench, cell, problem):
    import re

    assert re.search(problem, bench.fails(cell))


def test_what_only_a_loaded_model_has_is_refused(bench, scripted):  # noqa: F811
    bench.lab.attach(scripted(status(500)).url, name="far")
    assert "runs on the server" in bench.fails("%llm quant Q4_K_M")
    assert "can't use adapters" in bench.fails("%llm lora add pirate pirate")
    assert "runs on the server" in bench.fails("%llm advise far")
    bench.run("rows = [{'prompt': 'a', 'completion': 'b'}]")
    assert "runs on the server" in bench.fails("%llm tune --data rows --name x")


def test_tab_offers_servers_and_names_of_keys(bench, monkeypatch):
    from tests.magics.test_completion import offers

    monkeypatch.setenv("FAR_API_KEY", "sk-secret-1234")
    assert "http://127.0.0.1:11434" in offers(bench.shell, "%llm attach ")[1]
    found = offers(bench.shell, "%llm attach http://x --key-env FAR_")[1]
    assert found == ["FAR_API_KEY"]


def test_a_name_that_a_loaded_model_has_is_not_taken(bench, scripted):  # noqa: F811
    bench.add("model-7b")
    model = bench.lab.attach(scripted(says("Hi")).url)
    assert model.name.startswith("model-7b@127.0.0.1-")
    assert next(iter(bench.lab.models)) == "model-7b"
    assert isinstance(bench.lab, Lab)
