"""`%llm history --log`, `--prune`, and `%llm chat --resume`: the run log from a cell."""

from __future__ import annotations

import pytest


@pytest.fixture
def own_log(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    yield tmp_path
    bench.lab.runlog.close()


def test_cells_are_logged_and_found(bench, own_log):
    bench.add("nano")
    bench.run("%%llm -t 0 --seed 3\nWhat about <b>Paris</b>?")
    bench.run("%%llm -c\nAnd Rome?")
    bench.run("%%llm --raw\nOnce upon a time")
    view = bench.run("%llm history --log").result
    assert list(view.frame["prompt"]) == ["What about <b>Paris</b>?", "And Rome?", "Once upon a time"]
    one, two, raw = view.frame["conversation"]
    assert one == two == bench.lab.history.conversations[0].id
    assert raw == ""
    assert view.frame["params"][0]["seed"] == 3
    assert len(view.frame["messages"][1]) == 3
    assert "<b>" not in view._repr_html_()
    assert f"{one}" in view.text()
    assert list(bench.run("%llm history --log -n 2 --search rome").result.frame["prompt"]) == ["And Rome?"]
    assert "Nothing in the run log" in bench.run("%llm history --log --search nowhere").out
    talk = bench.run(f"talk = %llm chat --resume {one}\nlen(talk.messages)").result
    assert talk == 4
    bench.shell.user_ns["talk"].close()
    assert "3 answers deleted" in bench.run("%llm history --prune all").out
    assert len(bench.run("%llm history --log").result.frame) == 0


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%llm history --prune soon", "takes an age"),
        ("%llm history -n 3", "--log"),
        ("%llm chat --resume", "no chat to resume"),
        ("%llm chat --resume nope", "Unknown conversation 'nope'"),
    ],
)
def test_what_goes_wrong_is_said(bench, own_log, cell, says):
    assert says in bench.fails(cell)
