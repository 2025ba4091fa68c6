"""`%llm lora` and `%%llm -a`, over a real engine."""

import pytest

from llmlab import Lab
from llmlab.adapters.comparison import AdapterComparison
from llmlab.errors import UnsupportedError
from llmlab.magics import register, unregister
from llmlab.magics.command import Context
from llmlab.magics.completion import complete
from tests.adapters.conftest import folders

__all__ = ["folders"]


@pytest.fixture(scope="module")
def nano_lab():
    lab = Lab()
    lab.load("nano", engine="llamacpp")
    yield lab
    lab.close()


@pytest.fixture
def run(nano_lab, ipython, capsys):
    shell = ipython
    register(shell, lambda: nano_lab)

    def ask(cell, *, fails=False):
        ran = shell.run_cell(cell)
        out = capsys.readouterr()
        assert ran.success is not fails, out.out
        return out.out + out.err if fails else ran.result

    ask.shell = shell
    ask.lab = nano_lab
    yield ask
    unregister(shell)
    for name in nano_lab.get().adapters:
        nano_lab.get().remove_adapter(name)


def test_add_use_off_ls_rm(run, folders):
    model = run.lab.get()
    assert "rank 8" in repr(run(f"%llm lora add a {folders['a']}"))
    run(f"%llm lora add b {folders['b']}")
    assert "a:0.5" in repr(run("%llm lora use a:0.5"))
    assert model.adapter == "a:0.5"
    assert run("%%llm -t 0 --max-tokens 4\nHello!").adapter == "a:0.5"
    assert run("%%llm -a b:0.5 -t 0 --max-tokens 4\nHello!").adapter == "b:0.5"
    assert run("%%llm -a none -t 0 --max-tokens 4\nHello!").adapter is None
    shown = run("%llm lora ls")
    assert shown.value == ("a", "b")
    assert "*" in repr(shown)
    run("%llm lora off")
    assert model.adapter is None
    run("%llm lora use b")
    run("%llm lora rm b")
    assert model.adapters == ("a",)
    assert model.adapter is None


def test_shipped_adapters_need_no_path(run):
    entry = run("%llm lora add pirate").value
    assert entry.files.rank >= 1
    text = run("%%llm -a pirate -t 0 --max-tokens 40\nWhat is the capital of France?").text
    assert text != run("%%llm -a none -t 0 --max-tokens 40\nWhat is the capital of France?").text


def test_compare(run, folders):
    run(f"%llm lora add a {folders['a']}")
    run.shell.user_ns["asked"] = ["Hello!", "Tell me about a cat."]
    run.shell.user_ns["length"] = len
    run.shell.user_ns["about"] = lambda text, prompt: prompt in text
    found = run("%llm lora --compare none a a:0.5 --prompts asked --metric length --max-tokens 8 -o kept")
    assert isinstance(found, AdapterComparison)
    assert run.shell.user_ns["kept"] is found
    assert found.adapters == ("none", "a", "a:0.5")
    assert found.means["a"] == sum(len(row[1].text) for row in found.completions) / 2
    assert found.to_pandas().shape == (6, 7)
    assert "mean len" in repr(found)
    assert found.estimates["a"].value == found.means["a"]
    assert found.estimates["a"].n == 2
    assert [one.split(" on len")[0].split()[-3:] for one in found.conclusions] == [
        ["and", "none", "differ"],
        ["and", "none", "differ"],
    ]
    assert found.estimates["a"].text in repr(found)
    assert found.conclusions[0] in repr(found)
    assert "<table" in found._repr_html_()
    assert run("%llm lora --compare none --prompts asked --metric about --max-tokens 4").means == {"none": 0.5}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%llm lora add", "NAME SOURCE"),
        ("%llm lora use", "NAME[:SCALE]"),
        ("%llm lora rm nobody", "Unknown adapter"),
        ("%llm lora add x nowhere/at/all", "There is no adapter"),
        ("%llm lora add x piratt", "Did you mean 'pirate'"),
        ("%llm lora --compare none", "--prompts"),
        ("%llm lora frob", "Unknown"),
        ("%%llm -a nobody\nHello", "Unknown adapter"),
    ],
)
def test_what_goes_wrong_is_one_line(run, line, says):
    assert says in run(line, fails=True)


def test_tab(run, folders):
    run(f"%llm lora add a {folders['a']}")
    bench = Context(run.shell, lambda: run.lab, None)

    def offers(line):
        return [text for text, _ in complete(line, 0, len(line), bench)[1]]

    assert "lora" in offers("%llm lo")
    assert {"add", "use", "off"} <= set(offers("%llm lora "))
    assert {"a", "none"} <= set(offers("%llm lora use "))
    assert "pirate" in offers("%llm lora add ")
    assert "a" in offers("%%llm -a ")


def test_a_model_without_adapter_slots_is_reloaded_in_place(run, folders):
    run("%llm load nano --engine vllm --as bare --ctx 512 --max-concurrency 2 --lora 0")
    try:
        model = run.lab.get("bare")
        assert "without adapter slots" in model.lora_limits.refused
        with pytest.raises(UnsupportedError, match="without adapter slots") as refused:
            model.add_adapter("a", folders["a"])
        assert "llmlab.lab().reload(NAME, extra={'max_loras': 4})" in refused.value.hint
        assert "is attached to bare (vllm)" in repr(run(f"%llm lora add a {folders['a']} -m bare"))
        assert run.lab.get("bare") is model
        assert model.facts.context_length == 512
        assert "reloaded with -x max_loras=4" in model.reason
        assert model.generate("Hello!", adapter="a", temperature=0, max_tokens=4).adapter == "a"
    finally:
        run.lab.unload("bare")
