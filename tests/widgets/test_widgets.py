"""Arena, inspector and panel: their Python sides; the front end's files; the static forms in an executed notebook."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from llmlab.errors import BadInputError, GenerationError
from llmlab.widgets import Arena, Chat, Grid, Inspector, Panel
from tests import scripted_engine
from tests.scripted_engine import TEMPLATE
from tests.widgets.wire import page


def test_arena_same_seed_and_votes(bench: Any, wire: None) -> None:
    other = scripted_engine.add(bench.lab, "other")
    arena = Arena(lab=bench.lab, blind=True)
    first, second = arena.send("hello")
    assert (first.model, second.model) == ("echo", "other")
    assert bench.engine.params[-1].seed == other.params[-1].seed
    assert "echo" not in arena.markdown()
    assert "other" not in arena.html()
    page(arena, "vote", choice=1)
    assert arena.problem == {}
    assert arena.revealed
    votes = arena.votes
    assert list(votes.winner) == ["other · F16"]
    assert (bool(votes.blind[0]), votes.column[0], votes.prompt[0]) == (True, 1, "hello")
    assert "other · F16 1" in arena.markdown()
    with pytest.raises(BadInputError, match="already voted"):
        arena.vote("tie")
    arena.send("again")
    arena.vote("tie")
    assert list(arena.votes.winner) == ["other · F16", "tie"]
    arena.close()


def test_arena_columns_and_errors(bench: Any, wire: None) -> None:
    arena = Arena(lab=bench.lab, columns=[{"model": "echo", "temperature": 0}, {"temperature": 1.5}], max_tokens=2)
    assert [c["sampling"] for c in arena.columns] == [
        {"max_tokens": 2, "temperature": 0},
        {"max_tokens": 2, "temperature": 1.5},
    ]
    assert [r.finish_reason for r in arena.send("x")] == ["length", "length"]
    with pytest.raises(BadInputError, match="2 to 8"):
        Arena(lab=bench.lab, columns=[{}])
    with pytest.raises(BadInputError, match="have its own seed"):
        Arena(lab=bench.lab, columns=[{"seed": 1}, {}])
    page(arena, "columns", columns=[{"model": "echo"}] * 3)
    assert len(arena.answers) == 3
    page(arena, "vote", choice=0)
    assert "nothing to vote on" in arena.problem["message"]
    bench.engine.error = GenerationError("The engine broke.")
    with pytest.raises(GenerationError):
        arena.send("x")
    assert all(a["error"]["message"] == "The engine broke." for a in arena.answers)
    arena.close()


def test_arena_folds_thoughts_and_votes_on_answers(bench: Any, wire: None) -> None:
    bench.engine.facts = replace(bench.engine.facts, chat_template=TEMPLATE + "<think>{# </think> #}")
    bench.lab.get()._facts = bench.engine.facts
    bench.engine.piece = 1  # the answer's request has every character of the thought
    bench.engine.say = lambda prompt, _: "Yes." if "Is <b>it" in prompt else "Is <b>it</b>?</think>"
    arena = Arena(lab=bench.lab, columns=[{"think": 500}, {}], think=400)
    assert [column["sampling"]["think"] for column in arena.columns] == ["500", "400"]
    first, _ = arena.send("Really?")
    assert (first.text, first.reasoning) == ("Yes.", "Is <b>it</b>?")
    deltas = [m for m in arena.comm.customs("delta") if m["column"] == 0]
    assert "".join(m.get("thought", "") for m in deltas) == "Is <b>it</b>?"
    assert "".join(m.get("text", "") for m in deltas) == "Yes."
    assert arena.answers[1]["thought"] == "Is <b>it</b>?"
    assert arena.html().count("<details>") == arena.markdown().count("<details>") == 2
    assert "<b>it</b>" not in arena.html()
    arena.vote(0)
    assert arena.ballots[0]["answers"] == ["Yes.", "Yes."]
    with pytest.raises(BadInputError, match="think is on, off, low"):
        Arena(lab=bench.lab, columns=[{"think": "often"}, {}])
    arena.close()


def test_inspector_continues_from_an_alternative(bench: Any, wire: None) -> None:
    done = bench.lab.get().generate("hi", logprobs=2)
    view = Inspector(done, lab=bench.lab)
    rows = view.versions[0]["rows"]
    assert "".join(row[0] for row in rows) == done.text
    page(view, "continue", token=1, alternative=1)
    assert view.problem == {}
    assert view._answering.wait(60)
    assert bench.engine.prompts[-1] == done.prompt + rows[0][0] + "|"
    new = view.versions[1]
    assert new["rows"][:2] == [rows[0], ["|", rows[1][2][1][1], rows[1][2]]]
    assert len(new["rows"]) > 2
    assert view.shown == 1
    page(view, "continue", token=99, alternative=0)
    assert "no token 99" in view.problem["message"]
    assert "%" in view.markdown()
    assert "<span" in view.html()
    view.close()


def test_inspector_without_probabilities_asks_again(bench: Any, wire: None) -> None:
    done = bench.lab.get().generate("hi", seed=5)
    view = Inspector(done, lab=bench.lab)
    assert all(row[1] is None for row in view.versions[0]["rows"])
    assert "generate with logprobs" in view.markdown()
    again = view.again().result()
    assert again.choices[0].seed == 5
    assert view.versions[1]["rows"][0][1] is not None
    with pytest.raises(BadInputError, match="no choice 3"):
        Inspector(done, lab=bench.lab, choice=3)
    view.close()


def test_panel_follows_the_bench(bench: Any, wire: None) -> None:
    panel = Panel(lab=bench.lab)
    assert [row["name"] for row in panel.rows] == ["echo"]
    scripted_engine.add(bench.lab, "other")
    page(panel, "look")
    assert [(r["name"], r["current"]) for r in panel.rows] == [("echo", False), ("other", True)]
    page(panel, "use", name="echo")
    assert bench.lab.current.name == "echo"
    bench.engine.pace = 0.05
    stream = bench.lab.get("echo").stream("x" * 40)
    stream.start()
    panel.refresh()
    assert panel.rows[0]["in_flight"] == 1
    stream.cancel()
    page(panel, "unload", name="other")
    panel._work.wait(60)
    assert list(bench.lab.models) == ["echo"]
    assert [row["name"] for row in panel.rows] == ["echo"]
    assert "echo" in panel.markdown()
    page(panel, "unload", name="nope")
    assert "nope" in panel.problem["message"]
    panel.close()


def test_front_end_files() -> None:
    for name in ("chat", "arena", "grid", "inspector", "panel"):
        text = WIDGETS[name]._esm
        assert not re.search(r"^import\b|\bimport\(", text, re.MULTILINE)
        assert len(re.findall(r"\bexport ?\{\w+ as default\}", text)) == 1
        assert "https://cdn" not in text
        for sets_html in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
            assert sets_html not in text
        assert len(text) < 700_000
        assert "url(" not in WIDGETS[name]._css


WIDGETS: dict[str, Any] = {"chat": Chat, "arena": Arena, "grid": Grid, "inspector": Inspector, "panel": Panel}

NOTEBOOK = """
import sys; sys.path.insert(0, {root!r})
import llmlab
from tests import scripted_engine
from tests.scripted_engine import TEMPLATE
engine = scripted_engine.add(llmlab.lab())
chat = llmlab.chat()
chat
---
assert chat.send("hello there").text == "You said: hello there"
chat.send("and more");
---
arena = llmlab.arena(); arena
---
arena.send("compare"); arena.vote(0)
---
chat.completions[0].inspect()
---
llmlab.panel()
---
%load_ext llmlab
talk = %llm chat
%llm panel
"""


def test_an_executed_notebook_is_readable(tmp_path: Path) -> None:
    """As papermill runs it: no front end; what was said must be in the file, and in the widget's saved state."""
    from nbclient import NotebookClient

    cells = NOTEBOOK.format(root=str(Path(__file__).parents[2])).split("---\n")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    static = [o["data"] for cell in book.cells for o in cell.outputs if "text/markdown" in o.get("data", {})]
    assert "You said: hello there" in static[0]["text/markdown"]
    assert "You said: and more" in static[0]["text/html"]
    assert "You said: compare" in static[1]["text/markdown"]
    assert "votes: echo" in static[1]["text/html"]
    assert "You said: hello there" in static[2]["text/html"]
    assert "echo" in static[3]["text/html"]
    states = book.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    turns = [s["state"]["turns"] for s in states.values() if s["state"].get("turns")]
    assert [turn["text"] for turn in turns[0]] == [
        "hello there",
        "You said: hello there",
        "and more",
        "You said: and more",
    ]
    assert len(nbformat.writes(book).encode()) < 2_000_000


def test_llamacpp_for_real(llamacpp: Any, shared_lab: Any, wire: None) -> None:
    _real(llamacpp, shared_lab)


def test_quant_switches_in_place(lab: Any, wire: None) -> None:
    lab.load("nano", engine="llamacpp", quant="F16")
    other = lab.load("nano", engine="llamacpp", quant="F16", name="other")
    chat = Chat("nano", lab=lab, temperature=0, max_tokens=8)
    assert any(form["quant"] == "Q4_K_M" for form in chat.lab_state["models"][0]["quants"])
    page(chat, "quant", name="nano", quant="Q4_K_M")
    chat._work.wait(60)
    assert chat.problem == {}
    assert lab.get("nano").quant == "Q4_K_M"
    assert lab.current is other  # a switch changes what is loaded, not what is current
    assert chat.send("What is the capital of France?").quant == "Q4_K_M"
    page(chat, "quant", name="nano", quant="nope")
    chat._work.wait(60)
    assert "nope" in chat.problem["message"]
    assert lab.get("nano").quant == "Q4_K_M"
    chat.close()


def test_vllm_for_real(vllm: Any, shared_lab: Any, wire: None) -> None:
    _real(vllm, shared_lab)


def _real(model: Any, lab: Any) -> None:
    chat = Chat(model.name, lab=lab, temperature=0, logprobs=3)
    first = chat.send("Hello! My name is Farid.")
    second = chat.send("What is my name?")
    assert (
        second.text
        == model.chat([*chat.messages[:2], {"role": "user", "content": "What is my name?"}], temperature=0).text
    )
    assert first.logprobs
    assert chat.turns[1]["tokens"][0][2]
    view = Inspector(second, lab=lab)
    forced = view.continue_from(0, "Nobody").result()
    assert forced.prompt.endswith("Nobody")
    assert view.versions[1]["rows"][0][0] == "Nobody"
    arena = Arena(lab=lab, columns=[{"model": model.name}] * 2, max_tokens=8)
    one, two = arena.send("Tell me a story.")
    assert one.token_ids == two.token_ids  # the same seed
    row = next(r for r in Panel(lab=lab).rows if r["name"] == model.name)
    assert row["weights"] > 1_000_000
    for widget in (chat, view, arena):
        widget.close()
