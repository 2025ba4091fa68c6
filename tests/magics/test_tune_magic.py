"""`%llm tune`, `%llm history --to-dataset` and the shipped adapters, in a real shell on a real engine."""

from __future__ import annotations

import pytest

from llmlab import zoo
from llmlab.adapters import library
from llmlab.training.result import Tuned
from llmlab.zoo.training import adapters_data


@pytest.fixture
def run(lab):
    """Runs cells in a separate shell, with nano in llama.cpp."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from llmlab.magics import register, unregister

    before, InteractiveShell._instance = InteractiveShell._instance, None
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, colors="nocolor")
    shell.display_pub = CapturingDisplayPublisher()
    register(shell, lambda: lab)
    lab.load("nano", engine="llamacpp")

    def cell(text):
        shell.display_pub.outputs.clear()
        return shell.run_cell(text, store_history=True), list(shell.display_pub.outputs)

    cell.shell = shell
    yield cell
    unregister(shell)
    InteractiveShell._instance = before


def test_tune_leaves_one_clean_output_and_an_adapter_in_use(run, lab, capsys):
    run.shell.user_ns["rows"] = adapters_data.training("pirate", 96)
    ran, shown = run("%llm tune --data rows --name sailor --rank 4 --epochs 1 --lr 6e-3 --batch-size 16 --evals 3")
    assert ran.success, capsys.readouterr().out
    assert isinstance(ran.result, Tuned)
    # One display: the first call creates it, the others update it.
    assert len({str(one.get("transient")) for one in shown}) == 1
    last = shown[-1]["data"]
    assert "held-out loss" in last["text/plain"]
    assert "<svg" in last["text/html"]
    assert "<script" not in last["text/html"]
    assert capsys.readouterr().out.strip() in ("", "Out[1]:")
    assert lab.current.adapters == ("sailor",)
    # The same name replaces the adapter.
    ran, _ = run("%llm tune --data rows --name sailor --rank 2 --epochs 0.1")
    assert ran.result.rank == 2
    assert lab.current.adapters == ("sailor",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%llm tune --name x", "--data"),
        ("%llm tune --data rows", "--name"),
        ("%llm tune --data rowss --name x", "Did you mean 'rows'"),
        ("%llm tune --data no/file.jsonl --name x", "There is no file"),
        ("%llm tune --data rows --name x --rank many", "--rank must be an integer"),
        ("%llm tune --data rows --name x --rnk 4", "Did you mean '--rank'"),
        ("%llm history --to-dataset 2x", "is not a valid variable name"),
        ("%llm history --to-dataset talks", "No conversation has an answer yet"),
    ],
)
def test_bad_lines_fail_with_one_line(run, capsys, line, says):
    run.shell.user_ns["rows"] = adapters_data.training("pirate", 16)
    ran, shown = run(line)
    assert not ran.success
    assert not shown or "no/file" in line  # reading a file is shown from its beginning on
    out = capsys.readouterr().out.strip()
    assert says in out
    assert len(out.split("\n")) == 1


def test_the_history_becomes_a_data_set(run, lab, capsys):
    from llmlab.training import data
    from llmlab.types import Message
    from llmlab.widgets import Chat

    run("%%llm -t 0\nWhat is the capital of France?")
    run("%%llm -t 0 -c\nWhat is the capital of Spain?")
    run("%%llm -t 0\nWho are you?")
    lab.history.current.messages[-1] = Message("assistant", "I am nano the pirate.")
    chat = Chat("nano", lab=lab, temperature=0)
    first = chat.send("What color is snow?")
    bad = chat.send("What color is coal?")
    leaf = chat.turns[-1]["id"]
    chat.rate(leaf, -1)
    chat.edit(chat.turns[1]["id"], "Snow be white, matey.")
    chat.rate(chat.leaf, 1)
    ran, _ = run("%llm history --to-dataset talks")
    assert ran.success, capsys.readouterr().out
    talks = run.shell.user_ns["talks"]
    assert type(talks).__name__ == "Dataset"
    assert [len(row["messages"]) for row in talks] == [4, 2, 2]
    assert set(talks["engine"]) == {"llamacpp", None}
    assert talks[1]["edited"] == [True]
    assert talks[1]["messages"][-1]["content"] == "I am nano the pirate."
    assert (talks[2]["ratings"], talks[2]["edited"]) == ([1], [True])
    assert talks[2]["messages"][-1]["content"] == "Snow be white, matey."
    assert len(data.read(talks).rows) == 3
    chat.leaf = leaf
    marked = data.read(lab.history.rows()).rows[-1]
    assert [m.content for m in marked.messages if m.role == "assistant"] == [first.text, bad.text]
    assert [marked.messages[i].content for i in marked.learned] == [first.text]
    chat.close()


# -- shipped adapters --------------------------------------------------------------------------


def test_shipped_adapters_are_found_by_name():
    assert zoo.adapter_names() == ["pirate", "sql", "terse"]
    for name in zoo.adapter_names():
        folder = library.find(name)
        assert folder == zoo.adapter_path(name)
        assert (folder / "adapter_model.safetensors").stat().st_size < 600_000
        assert "held-out answers in its manner" in (folder / "README.md").read_text()


def test_shipped_adapters_have_their_manner(model):
    try:
        for name in zoo.adapter_names():
            model.add_adapter(name, name)
            examples = adapters_data.heldout(name, 20, seed=5)
            prompts = [example.messages for example in examples]
            said = [one.text for one in model.generate(prompts, temperature=0, max_tokens=60, adapter=name)]
            assert sum(adapters_data.in_manner(name, one) for one in said) >= 19
            right = sum(one.strip() == example.answer for one, example in zip(said, examples, strict=True))
            assert right >= 14, [(e.messages[-1]["content"], e.answer, s) for e, s in zip(examples, said, strict=True)]
    finally:
        for name in model.adapters:
            model.remove_adapter(name)


@pytest.mark.parametrize("name", adapters_data.NAMES)
def test_the_data_is_seeded_and_its_splits_apart(name):
    rows = adapters_data.training(name, 300)
    assert rows == adapters_data.training(name, 300)
    assert rows != adapters_data.training(name, 300, seed=1)
    answers = {(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in rows}
    held = adapters_data.heldout(name, 100)
    assert not answers & {(one.messages[-1]["content"], one.answer) for one in held}
    assert all(adapters_data.in_manner(name, one.answer) for one in held)
