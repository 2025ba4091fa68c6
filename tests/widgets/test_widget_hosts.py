"""What other hosts and other widgets need of these: Colab's metadata, links, boxes; and exports that tell the truth."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest

from llmlab.errors import UnsupportedError
from llmlab.types import Message
from llmlab.widgets import Chat, Inspector, Panel
from tests.widgets.wire import page

VIEW = "application/vnd.jupyter.widget-view+json"


def test_colab_is_told_its_widget_manager(bench: Any, wire: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from anywidget import _util

    asked: list[bool] = []
    output = SimpleNamespace(
        enable_custom_widget_manager=lambda: asked.append(True), _widgets=SimpleNamespace(_installed_url="https://x/y")
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    _util.enable_custom_widget_manager_once.cache_clear()
    chat = Chat(lab=bench.lab)
    data, metadata = chat._repr_mimebundle_()
    assert asked == [True]
    assert metadata == {VIEW: {"colab": {"custom_widget_manager": {"url": "https://x/y"}}}}
    assert data[VIEW]["model_id"] == chat.model_id
    assert set(data) == {VIEW, "text/plain", "text/markdown", "text/html"}
    chat.close()


def test_traits_link_and_widgets_stand_in_boxes(bench: Any, wire: None) -> None:
    one, two = Chat(lab=bench.lab), Chat(lab=bench.lab)
    ipywidgets.link((one, "system"), (two, "system"))
    seen: list[str] = []
    one.observe(lambda change: seen.append(change["new"]), names="running")
    one.system = "Be brief."
    assert two.send("x").messages[0].content == "Be brief."
    one.send("y")
    assert [bool(turn) for turn in seen] == [True, False]
    box = ipywidgets.Tab([ipywidgets.HBox([one, two]), Panel(lab=bench.lab)])
    assert box.children[0].children == (one, two)
    one.layout.width = "50%"
    for widget in (one, two):
        widget.close()


def test_an_export_names_who_answered(bench: Any, wire: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench.lab.get()
    monkeypatch.setattr(type(model), "adapters", property(lambda self: ("pirate",)), raising=False)
    real = model.stream
    monkeypatch.setattr(model, "stream", lambda said, **o: real(said, **{k: v for k, v in o.items() if k != "adapter"}))
    chat = Chat(lab=bench.lab, temperature=0)
    chat.send("plain")
    chat.adapter = "pirate"
    chat.send("arr")
    chat.turns = [
        {**turn, "facts": {**turn["facts"], "adapter": "pirate"}} if i == 3 else turn
        for i, turn in enumerate(chat.turns)
    ]
    assert chat.to_cells() == ["%%llm -m echo -t 0 -a none\nplain", "%%llm -m echo -c -t 0 -a pirate\narr"]
    monkeypatch.undo()
    bench.lab.unload(everything=True)
    page(chat, "export", kind="cell")
    assert chat.problem == {}
    chat.close()


def test_the_inspector_says_what_the_mask_removed(llamacpp: Any, shared_lab: Any, wire: None) -> None:
    done = llamacpp.generate("Tell me a story.", regex="(Paris|Rome) [0-9]{2}", temperature=0, logprobs=3)
    view = Inspector(done, lab=shared_lab)
    assert len(view.mask) == len(view.versions[0]["rows"]) == len(done.token_ids)
    first = view.mask[0]
    assert first["removed"] > 0.9
    assert first["changed"]
    assert first["wanted"] not in ("Paris", "Rome")
    assert first["probability"] == pytest.approx(view.versions[0]["rows"][0][1], abs=1e-4)
    assert "regex" in view.markdown()
    assert "of the probability per token on average" in view.html()
    # Without logprobs the probabilities that were measured for the mask are shown.
    plain = Inspector(llamacpp.generate("Tell me a story.", choice=["yes", "no"], temperature=0), lab=shared_lab)
    assert all(row[1] is not None for row in plain.versions[0]["rows"])
    free = Inspector(llamacpp.generate("Hello", temperature=0, logprobs=1, max_tokens=4), lab=shared_lab)
    assert (free.mask, free.guided) == ([], {})
    for one in (view, plain, free):
        one.close()


def test_a_talk_is_resumed_from_the_page(
    bench: Any, wire: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    first = Chat(lab=bench.lab, temperature=0, system="Be kind.")
    first.send("one")
    first.regenerate().result()
    page(first, "rate", turn_id=first.leaf, rating=1)
    left, turns, leaf = first.conversation, first.turns, first.leaf
    page(first, "clear")
    assert first.conversation != left
    page(first, "resume", conversation=left)
    assert first.problem == {}
    assert (first.conversation, first.turns, first.leaf, first.system) == (left, turns, leaf, "Be kind.")
    page(first, "delete", turn_id=first.leaf)
    again = Chat(lab=bench.lab, resume=left)
    assert len(again.turns) == 2
    page(again, "resume", conversation="nope")
    assert "Unknown conversation" in again.problem["message"]
    monkeypatch.setenv("LLMLAB_RUN_LOG", "off")
    silent = Chat(lab=bench.lab, messages=[Message("user", "hi"), Message("assistant", "ho")])
    silent.send("x")
    assert silent.conversation == ""
    for one in (first, again, silent):
        one.close()
    bench.lab.runlog.close()


def test_an_answer_that_a_kernel_took_along_says_so(bench: Any, wire: None, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    chat = Chat(lab=bench.lab)
    bench.engine.say, bench.engine.pace = (lambda p, q: "word " * 500), 0.01
    chat.submit("long")
    bench.lab.runlog.flush()
    again = Chat(lab=bench.lab, resume=True)  # as a kernel finds it that starts now
    assert again.turns[0]["text"] == "long"
    assert "ended before" in again.turns[1]["error"]["message"]
    chat.close()
    again.close()
    bench.lab.runlog.close()


def test_an_image_is_refused_by_what_the_files_say(bench: Any, wire: None, llamacpp: Any, tmp_path: Any) -> None:
    from dataclasses import replace

    from llmlab.engines.vision import refusal
    from llmlab.files.vision import sees

    chat = Chat(lab=bench.lab)
    assert "echo supports text only" in chat.lab_state["models"][0]["no_images"]
    page(chat, "send", text="What is it?", files=[{"name": "cat.png", "text": None}])
    assert "supports text only" in chat.problem["message"]
    assert "mmproj" in chat.problem["hint"]
    assert chat.turns == []
    chat.close()
    with pytest.raises(UnsupportedError, match="supports text only"):
        llamacpp.chat([Message("user", "What is it?", images=(b"\x89PNG",))])
    assert not llamacpp.facts.sees
    assert refusal("llava", "llamacpp", replace(llamacpp.facts, sees=True)) is None
    (tmp_path / "config.json").write_text('{"vision_config": {"hidden_size": 64}}')
    assert sees(tmp_path)
    (tmp_path / "model-F16.gguf").touch()
    assert not sees(tmp_path / "model-F16.gguf")
    (tmp_path / "mmproj-F16.gguf").touch()
    assert sees(tmp_path / "model-F16.gguf")
