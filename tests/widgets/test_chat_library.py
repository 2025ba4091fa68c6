"""The chat's saved prompts, and the search in earlier chats."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.widgets import Chat
from tests.widgets.wire import page


@pytest.fixture
def chat(bench: Any, wire: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    made = Chat(lab=bench.lab)
    yield made
    made.close()
    bench.lab.runlog.close()


def test_presets_and_templates_on_the_page(chat: Any, bench: Any) -> None:
    page(chat, "prompts")
    assert chat.prompts == []
    page(chat, "save_prompt", name="brief", text="Be brief.", kind="system")
    assert chat.comm.customs("prompt_saved") == [{"do": "prompt_saved", "name": "brief", "kind": "system"}]
    page(chat, "save_prompt", name="ask", text="About {{topic}}?", kind="template")
    assert [(one["name"], one["variables"]) for one in chat.prompts] == [("brief", []), ("ask", ["topic"])]
    assert chat.prompt_change == "saved ask"
    page(chat, "delete_prompt", name="brief", kind="system")
    assert [one["name"] for one in chat.prompts] == ["ask"]
    page(chat, "undo_prompt")
    assert [one["name"] for one in chat.prompts] == ["brief", "ask"]
    page(chat, "save_prompt", name="../x", text="y", kind="system")
    assert "can't be a prompt's name" in chat.problem["message"]
    ready = Chat(lab=bench.lab, preset="Brief")
    assert ready.system == "Be brief."
    with pytest.raises(UnknownNameError, match="system prompt 'terse'"):
        Chat(lab=bench.lab, preset="terse")
    with pytest.raises(BadInputError, match="preset"):
        Chat(lab=bench.lab, preset="brief", system="x")


def found(chat: Any, query: str) -> dict[str, Any]:
    before = len(chat.comm.customs("found"))
    page(chat, "find", query=query)
    end = time.monotonic() + 60
    while len(chat.comm.customs("found")) == before and time.monotonic() < end:
        time.sleep(0.01)
    return chat.comm.customs("found")[-1]


def test_earlier_chats_are_found_by_their_words(chat: Any, bench: Any) -> None:
    ids = {}
    for name, lines in {
        "zebra": ["Tell me about the zebra", "Thanks 100%"],
        "okapi": ["The okapi", "and a zebra"],
    }.items():
        one = Chat(lab=bench.lab)
        for line in lines:
            one.send(line)
        ids[name] = one.conversation
        one.close()
    got = found(chat, "zebra")
    assert [row["id"] for row in got["rows"]] == [ids["okapi"], ids["zebra"]]
    assert (got["rows"][0]["turns"], got["rows"][0]["model"]) == (4, "echo")
    assert got["rows"][0]["snippet"] == "and a zebra"
    assert [row["id"] for row in found(chat, "OKAPI zebra")["rows"]] == [ids["okapi"]]
    assert [row["id"] for row in found(chat, "zebra 100%")["rows"]] == [ids["zebra"]]
    assert found(chat, "zebra nothing-like-it")["rows"] == []
    page(chat, "resume", conversation=ids["okapi"])
    assert [m["content"] for m in chat.messages if m["role"] == "user"] == ["The okapi", "and a zebra"]
    assert ids["okapi"] not in [row["id"] for row in found(chat, "okapi")["rows"]]  # it is this one
    frame = bench.lab.runlog.find("zebra", 1, kind="chat")
    assert len(frame) == 1
    with pytest.raises(BadInputError, match="n must be"):
        bench.lab.runlog.find("zebra", 0)
    table = llmlab.chats("zebra okapi")
    assert table[["id", "title", "turns"]].values.tolist() == [[ids["okapi"], "The okapi", 4]]
