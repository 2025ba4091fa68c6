"""The options of `%llm chat`: tools, presets, a full context, and the search in earlier chats."""

from __future__ import annotations

from typing import Any

import pytest

import llmlab


@pytest.fixture
def opened(bench: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function from options to a chat."""
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    bench.add("nano")
    bench.run('def add(a: int, b: int) -> int:\n    "Add."\n    return a + b')

    def make(options: str) -> Any:
        bench.run(f"talk = %llm chat {options}")
        return bench.shell.user_ns["talk"]

    yield make
    bench.lab.runlog.close()


def test_options_reach_the_chat(bench: Any, opened: Any) -> None:
    llmlab.prompts().save("brief", "Be brief.")
    talk = opened("nano --preset brief --overflow drop --tools add --tool-format generic")
    assert (talk.system, talk.overflow) == ("Be brief.", "drop")
    assert [(row["name"], row["always"]) for row in talk.tool_list] == [("add", False)]
    talk.close()
    free = opened("--tools add --no-approval")
    assert free.tool_list[0]["always"]
    free.close()


def test_earlier_chats_are_listed(bench: Any, opened: Any) -> None:
    talk = opened("nano")
    talk.send("Where do <b>okapis</b> live?")
    talk.close()
    view = bench.run("%llm chat --find okapis").result
    assert view.frame["id"].tolist() == [talk.conversation]
    assert talk.conversation in view.text()
    assert "<b>" not in view._repr_html_()
    assert len(bench.run("%llm chat --find").result.frame) == 1
    assert "No chat in the run log contains 'zebra'" in bench.run("%llm chat --find zebra").out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--preset nope", "Unknown saved system prompt 'nope'"),
        ("--tools nope", "there is no function 'nope'"),
        ("--tool-choice required", "needs tools"),
        ("--overflow drip", "drip"),
        ("--overflow shift", "context_shift=on"),
        ("--preset x -s y", "Both a system prompt and a preset"),
    ],
)
def test_what_goes_wrong_is_said(bench: Any, opened: Any, options: str, says: str) -> None:
    assert says in bench.fails(f"%llm chat {options}")
