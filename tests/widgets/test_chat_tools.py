"""Tools in the chat: each call waits for approval; a scripted engine for the logic, both real engines for one call."""

from __future__ import annotations

import html
import json
import time
from typing import Any

import pytest

from llmlab import zoo
from llmlab.errors import BadInputError, LlmLabError
from llmlab.widgets import Chat, terminal
from llmlab.widgets.tool_answer import Gate
from tests.scripted_engine import add as load
from tests.tool_calls.test_mcp import chosen, config  # noqa: F401 - fixtures
from tests.widgets.wire import page


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


def call(name: str = "add", **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments or {"a": 1, "b": 2}})


@pytest.fixture
def told(wire: None) -> Any:
    """A chat with tools, over a scripted model that says what `.texts` has, in turn."""
    from llmlab import Lab

    lab = Lab()
    engine = load(lab, template=(zoo.path("nano") / "chat_template.jinja").read_text())
    engine.piece, texts = 4, []
    engine.say = lambda *_: texts.pop(0) if texts else "The end."
    made = Chat(lab=lab, tools=[add, fail])
    made.texts, made.engine = texts, engine
    yield made
    made.close()
    lab.close()


def waiting(chat: Any) -> Any:
    """The call that waits."""
    end = time.monotonic() + 60
    while not chat.waiting and time.monotonic() < end:
        time.sleep(0.005)
    assert chat.waiting, chat.last.wait(0)
    return chat.waiting[0]


def states(chat: Any) -> list[str]:
    return [step["state"] for step in chat.turns[-1]["steps"]]


def test_a_call_waits_for_approval_and_then_runs(told: Any) -> None:
    told.texts += [call(), "It is 3."]
    page(told, "send", text="1 + 2?")
    asked = waiting(told)
    assert (asked.name, asked.arguments) == ("add", {"a": 1, "b": 2})
    shown = told.comm.customs("steps")[-1]["steps"][0]
    assert (shown["name"], shown["arguments"], shown["state"]) == ("add", {"a": 1, "b": 2}, "waiting")
    page(told, "hello", view="second")
    assert told.comm.customs("hello")[-1]["live"][told.running]["steps"][0]["state"] == "waiting"
    page(told, "decide", call=asked.id, allow=True)
    told.last.wait(60)
    turn = told.turns[-1]
    assert turn["text"] == "It is 3."
    assert [(step["state"], step["result"]) for step in turn["steps"]] == [("done", "3")]
    assert [m["role"] for m in told.messages] == ["user", "assistant", "tool", "assistant"]
    told.texts += ["You are welcome."]
    page(told, "send", text="Thanks")
    told.last.wait(60)
    assert '"add"' in told.engine.prompts[-1]
    assert "3" in told.engine.prompts[-1].split('"add"')[-1]
    row = told.row()
    assert len(row["ratings"]) == sum(m["role"] == "assistant" for m in row["messages"])
    for form in told.static().values():
        assert "add(a=1, b=2)" in html.unescape(form)
    assert "--tools add,fail --approve" in told.to_cells()[0]


def test_a_call_without_an_answer_stays_in_the_conversation(told: Any) -> None:
    short = Chat(lab=told.lab, tools=[add], approve=False, max_steps=1)
    told.texts += [call(), call(a=3, b=4), "Seven."]
    short.send("Go")
    assert short.turns[-1]["text"] == ""
    short.send("And?")
    assert "Go" in told.engine.prompts[-1]
    assert '"a": 1' in told.engine.prompts[-1]
    row = short.row()
    assert len(row["ratings"]) == sum(m["role"] == "assistant" for m in row["messages"])
    short.close()


def test_a_denied_call_is_told_to_the_model(told: Any) -> None:
    told.texts += [call(), "Then not."]
    page(told, "send", text="1 + 2?")
    waiting(told)
    told.deny()
    told.last.wait(60)
    assert states(told) == ["denied"]
    assert told.turns[-1]["text"] == "Then not."
    assert "did not allow" in told.engine.prompts[-1]
    assert "not allowed" in told.markdown()
    with pytest.raises(LlmLabError, match="No call is waiting"):
        told.approve()


def test_a_tool_can_be_always_allowed_in_this_chat(told: Any) -> None:
    told.texts += [f"{call()}\n{call('add', a=3, b=4)}\n{call('fail', why='no <b>luck</b>')}", "Done."]
    page(told, "send", text="Go")
    first = waiting(told)
    assert [step["state"] for step in told.comm.customs("steps")[-1]["steps"]] == ["waiting", "queued", "queued"]
    page(told, "decide", call=first.id, allow=True, always=True)
    assert {row["name"]: row["always"] for row in told.tool_list} == {"add": True, "fail": False}
    assert waiting(told).name == "fail"  # the second call of add didn't wait
    page(told, "decide", call="nope", allow=True)
    assert "Unknown waiting call" in told.problem["message"]
    told.approve()
    told.last.wait(60)
    assert states(told) == ["done", "done", "failed"]
    assert "<b>" not in told.html()
    page(told, "set_tool", name="add", always=False)
    told.texts += [call(), "Again."]
    page(told, "send", text="Go")
    assert waiting(told).name == "add"
    told.stop()
    told.last.wait(60)


def test_stop_ends_an_answer_that_waits_for_approval(told: Any) -> None:
    told.texts += [call(), "Never said."]
    page(told, "send", text="Go")
    waiting(told)
    page(told, "stop")
    assert told.last.wait(60)
    assert told.last.result().finish_reason == "interrupted"
    assert told.running == ""
    assert len(told.engine.prompts) == 1
    assert not told.waiting


def test_tools_are_switched_and_removed(told: Any) -> None:
    page(told, "set_tool", name="fail", on=False)
    told.texts += [call("fail", why="x"), "No."]
    page(told, "send", text="Go")
    told.last.wait(60)
    assert "unknown tool 'fail'" in told.turns[-1]["steps"][0]["error"]
    page(told, "remove_tool", name="fail")
    page(told, "remove_tool", name="add")
    assert told.tool_list == []
    told.texts += ["Plain."]
    told.send("And now?")  # without tools, the earlier call is text
    assert "Error" in told.engine.prompts[-1]
    page(told, "set_tool", name="add", on=True)
    assert "Unknown tool" in told.problem["message"]
    page(told, "add_tool", name="nothing")
    assert "Unknown function" in told.problem["message"]


def test_approval_by_argument(bench: Any, wire: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match="needs tools"):
        Chat(lab=bench.lab, tool_choice="required")
    with pytest.raises(BadInputError, match="approve is True"):
        Chat(lab=bench.lab, tools=[add], approve="add")
    careful = Chat(lab=bench.lab, tools=[add, fail], approve=["fail"])
    assert [row["always"] for row in careful.tool_list] == [False, True]
    with pytest.raises(BadInputError, match="no standard input"):
        careful.send("Go")  # would wait for ever: nobody can be asked
    careful.close()
    gate = Gate(set(), lambda asked: asked.name == "add")
    assert [gate(type("Call", (), {"name": name, "id": name})()) for name in ("add", "fail")] == [True, False]


def test_without_approval_a_cell_gets_the_answer(told: Any) -> None:
    open_chat = Chat(lab=told.lab, tools=add, approve=False)
    told.texts += [call(), "It is 3."]
    done = open_chat.send("1 + 2?")
    assert (done.text, done.steps[0].result) == ("It is 3.", "3")
    open_chat.close()


def test_a_terminal_prompts_for_each_call(told: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    answers = {"add": True, "fail": False}
    monkeypatch.setattr(terminal, "ask_user", lambda asked: answers[asked.name])
    told.texts += [f"{call()}\n{call('fail', why='x')}", "It is 3."]
    terminal.TerminalChat(told)._follow(told.submit("1 + 2?"))
    shown = capsys.readouterr().out
    assert "add(a=1, b=2) → 3\nfail(why='x') → not allowed\n" in shown
    assert shown.index("not allowed") < shown.index("It is 3.")


def test_a_servers_tools_are_added_and_approved(told: Any) -> None:
    for name in ("add", "fail"):
        page(told, "remove_tool", name=name)
    page(told, "tools")
    assert "mcp:sums" in told.comm.customs("tools")[-1]["servers"]
    page(told, "add_tool", name="mcp:sums")
    told._work.wait(60)
    assert [(row["name"], row["origin"]) for row in told.tool_list] == [("add", "mcp:sums"), ("fail", "mcp:sums")]
    told.texts += [call(), "It is 3."]
    page(told, "send", text="1 + 2?")
    waiting(told)
    told.approve()
    told.last.wait(60)
    assert told.turns[-1]["steps"][0]["result"] == "3"
    assert "--tools mcp:sums" in told.to_cells()[0]
    page(told, "add_tool", name="mcp:nope")
    told._work.wait(60)
    assert "Unknown MCP server 'nope'" in told.problem["message"]


def test_a_forced_call_on_each_engine(model: Any, shared_lab: Any, wire: None) -> None:
    chat = Chat(
        model.name, lab=shared_lab, tools=[add], tool_format="generic", tool_choice="required", max_steps=1,
        temperature=0, max_tokens=60,
    )  # fmt: skip
    page(chat, "send", text="How much is 12 + 30?")
    asked = waiting(chat)
    assert asked.name == "add"
    chat.approve(always=True)
    assert chat.last.wait(60)
    step = chat.turns[-1]["steps"][0]
    assert (step["state"], step["result"]) == ("done", str(step["arguments"]["a"] + step["arguments"]["b"]))
    chat.close()
