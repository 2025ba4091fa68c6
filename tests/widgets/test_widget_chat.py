"""The chat's Python side, driven through comm messages as a page sends them."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

import llmlab
from llmlab.errors import BadInputError, GenerationError, LlmLabError, UnknownNameError
from llmlab.widgets import Chat
from llmlab.widgets.export import keep
from llmlab.widgets.pump import SEND_EVERY_S
from tests.scripted_engine import TEMPLATE
from tests.widgets.wire import page


@pytest.fixture
def chat(bench: Any, wire: None) -> Any:
    made = Chat(lab=bench.lab)
    yield made
    made.close()


def settle(chat: Any) -> None:
    assert chat.last is not None
    assert chat.last.wait(60)


def said(chat: Any) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in chat.messages]


def test_send_returns_the_completion(chat: Any) -> None:
    completion = chat.send("hello", files=[{"name": "a.txt", "text": "inside"}])
    assert completion.text == "You said: hello"
    assert completion.finish_reason == "stop"
    assert said(chat)[1] == ("assistant", "You said: hello")
    assert "a.txt:\n```\ninside\n```" in said(chat)[0][1]
    assert chat.completions == [completion]
    assert chat.meter["used"] > 0
    assert chat.turns[1]["facts"]["tokens"] == completion.usage.completion_tokens


def test_messages_stream_in_batches_and_lose_nothing(chat: Any, bench: Any) -> None:
    text = "".join(f"{i:04d} " for i in range(600))
    bench.engine.say = lambda prompt, params: text
    bench.engine.pace, bench.engine.piece = 0.002, 5
    chat.sampling = {"max_tokens": 600}
    started = time.perf_counter()
    page(chat, "send", text="many", ticket="t1")
    assert chat.running
    settle(chat)
    took = time.perf_counter() - started
    pieces = chat.comm.customs("delta")
    assert "".join(m["text"] for m in pieces) == text
    assert all(m["at"] == sum(len(p["text"]) for p in pieces[:i]) for i, m in enumerate(pieces))
    assert len(pieces) <= took / SEND_EVERY_S + 3, f"{len(pieces)} messages in {took:.1f} s"
    assert chat.comm.customs("accepted") == [{"do": "accepted", "ticket": "t1"}]
    assert chat.turns[-1]["text"] == text
    assert chat.running == ""


def test_callbacks_return_at_once_and_stop_works(chat: Any, bench: Any) -> None:
    bench.engine.say = lambda prompt, params: "word " * 2000
    bench.engine.pace = 0.01
    page(chat, "send", text="long")
    assert chat.running  # the callback is back, and the answer takes 25 s
    while not chat.comm.customs("delta"):
        time.sleep(0.01)
    page(chat, "stop")
    settle(chat)
    assert chat.last.result().finish_reason == "interrupted"
    assert chat.turns[-1]["text"].startswith("word")
    assert chat.turns[-1]["facts"]["finish"] == "interrupted"


def test_a_new_view_hears_what_is_under_way(chat: Any, bench: Any) -> None:
    bench.engine.pace = 0.02
    page(chat, "send", text="hello " * 20)
    while not chat.comm.customs("delta"):
        time.sleep(0.01)
    page(chat, "hello", view="v2")
    live = chat.comm.customs("hello")[-1]["live"][chat.running]
    assert "You said: hello hello".startswith(live["text"][:20])
    assert live["tokens"] > 0
    settle(chat)


def test_regenerate_keeps_versions_and_moves_a_set_seed_on(chat: Any, bench: Any) -> None:
    chat.sampling = {"seed": 7}
    chat.send("hello")
    page(chat, "regenerate", turn_id=chat.leaf)
    settle(chat)
    assert [p.seed for p in bench.engine.params] == [7, 8]
    answers = [t for t in chat.turns if t["role"] == "assistant"]
    assert len(answers) == 2
    assert answers[0]["parent"] == answers[1]["parent"]
    page(chat, "show", turn_id=answers[0]["id"])
    assert chat.leaf == answers[0]["id"]


def test_an_answer_that_was_cut_off_grows_in_its_turn(chat: Any, bench: Any) -> None:
    bench.engine.say = lambda prompt, params: "one two three four five six" if "one" not in prompt[10:] else " and more"
    chat.sampling = {"max_tokens": 3}
    first = chat.send("count")
    assert first.finish_reason == "length"
    assert chat.turns[-1]["facts"]["finish"] == "length"
    assert "continue with" not in chat.turns[-1]["facts"]["line"]
    turn = chat.leaf
    page(chat, "continue", turn_id=turn)
    settle(chat)
    assert (chat.leaf, len(chat.turns)) == (turn, 2)
    assert chat.turns[-1]["text"].startswith(first.text)
    assert len(chat.turns[-1]["text"]) > len(first.text)
    assert chat.completions[-1].prefix == first.text
    assert chat.comm.customs("delta")[-2]["at"] == 0 or chat.comm.customs("delta")[-1]["at"] == 0


def test_an_edited_answer_continues_from_its_new_text(chat: Any, bench: Any) -> None:
    chat.send("hello")
    chat.edit(chat.leaf, "My own words")
    page(chat, "continue", turn_id=chat.leaf)
    settle(chat)
    assert bench.engine.prompts[-1].endswith("My own words")
    assert chat.turns[-1]["text"].startswith("My own words")
    assert [m["role"] for m in chat.messages] == ["user", "assistant"]
    with pytest.raises(BadInputError, match="no answer to continue"):
        chat.continue_(chat.turns[0]["id"])
    earlier = chat.leaf
    chat.send("again")
    with pytest.raises(BadInputError, match="Only the last answer"):
        chat.continue_(earlier)


def test_settings_with_penalties_are_sent_and_exported(chat: Any, bench: Any) -> None:
    chat.sampling = {"repetition_penalty": 1.2, "bad_words": ["dog"], "logit_bias": {"5": -3}}
    done = chat.send("hello")
    assert (done.params.repetition_penalty, done.params.bad_words, done.params.logit_bias) == (1.2, ("dog",), {5: -3.0})
    assert "--repetition-penalty 1.2 --bad-words dog --logit-bias 5=-3" in chat.to_cells()[0]


def test_edit_branches(chat: Any) -> None:
    chat.send("one")
    chat.send("two")
    first = chat.turns[0]["id"]
    page(chat, "edit", turn_id=first, text="other", ticket="e")
    settle(chat)
    assert said(chat) == [("user", "other"), ("assistant", "You said: other")]
    page(chat, "show", turn_id=first)
    assert [t for r, t in said(chat) if r == "user"] == ["one", "two"]
    page(chat, "edit", turn_id=chat.turns[1]["id"], text="by hand")
    assert said(chat) == [("user", "one"), ("assistant", "by hand")]


def test_delete_rate_clear(chat: Any) -> None:
    chat.send("one")
    chat.send("two")
    page(chat, "rate", turn_id=chat.leaf, rating=1)
    assert chat.turns[-1]["rating"] == 1
    page(chat, "delete", turn_id=chat.turns[2]["id"])
    assert [t for _, t in said(chat)] == ["one", "You said: one"]
    page(chat, "clear")
    assert chat.turns == []
    assert "no messages yet" in chat.markdown()


def test_errors_appear_in_the_widget_and_on_result(chat: Any, bench: Any) -> None:
    page(chat, "send", text="  ")
    assert chat.problem == {"message": "The message is empty.", "hint": "Enter a message."}
    assert chat.turns == []
    bench.engine.error = GenerationError("The engine broke.", "Load it again.")
    page(chat, "send", text="hello")
    settle(chat)
    assert chat.problem == {}
    assert chat.turns[-1]["error"] == {"message": "The engine broke.", "hint": "Load it again."}
    with pytest.raises(GenerationError, match="broke"):
        chat.last.result()
    bench.engine.error = None
    assert chat.send("again").text == "You said: again"
    assert "broke" not in bench.engine.prompts[-1]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"do": "sned"}, "Unknown message 'sned'"),
        ({"do": "show", "turn_id": "nope"}, "Unknown turn"),
        ({"do": "rate", "turn_id": "nope", "rating": 5}, "A rating is"),
        ({"do": "send", "text": "x", "files": [{"name": "a", "text": None}]}, "isn't text"),
        ({"do": "send", "nonsense": 1}, "TypeError"),
        ({"do": "pick", "model": "nope"}, "Unknown loaded model"),
        ({"do": "pick", "adapter": "nope"}, "Unknown adapter"),
        ({"do": "export", "kind": "pdf"}, "Unknown export"),
    ],
)
def test_bad_messages_are_said_in_the_widget(chat: Any, message: dict[str, Any], says: str) -> None:
    page(chat, message.pop("do"), **message)
    assert says in chat.problem["message"]
    assert chat.turns == []


def test_bad_settings(chat: Any, bench: Any) -> None:
    chat.sampling = {"temperature": -1}
    page(chat, "send", text="x")
    assert "temperature" in chat.problem["message"]
    chat.sampling, chat.schema = {}, "{nope"
    page(chat, "send", text="x")
    assert "isn't JSON" in chat.problem["message"]
    with pytest.raises(UnknownNameError, match="sampling"):
        Chat(lab=bench.lab, samplings={})
    with pytest.raises(UnknownNameError, match="nope"):
        Chat("nope", lab=bench.lab)


def test_one_answer_at_a_time(chat: Any, bench: Any) -> None:
    bench.engine.pace = 0.05
    chat.submit("first")
    with pytest.raises(LlmLabError, match="still being generated"):
        chat.submit("second")
    settle(chat)
    assert len(chat.turns) == 2


def test_close_cancels(bench: Any, wire: None) -> None:
    chat = Chat(lab=bench.lab)
    bench.engine.say = lambda prompt, params: "word " * 5000
    bench.engine.pace = 0.01
    answering = chat.submit("long")
    chat.close()
    assert answering.wait(60)
    assert answering.result().finish_reason == "interrupted"
    chat.close()


def test_without_a_model(wire: None) -> None:
    with llmlab_lab() as lab:
        chat = Chat(lab=lab)
        assert "no model is loaded" in chat.markdown()
        with pytest.raises(UnknownNameError, match="No model is loaded"):
            chat.send("hello")
        page(chat, "load", spec="  ")
        assert chat.problem["message"] == "No model was named."
        page(chat, "load", spec="nope-such-model")
        chat._work.wait(60)
        assert "nope-such-model" in chat.problem["message"]
        assert chat.lab_state["work"] is None
        chat.close()


class llmlab_lab:
    def __enter__(self) -> Any:
        self.lab = llmlab.Lab()
        return self.lab

    def __exit__(self, *_: object) -> None:
        self.lab.close()


def test_state_takes_what_a_page_sets(chat: Any) -> None:
    chat._handle_msg(
        {"content": {"data": {"method": "update", "state": {"system": "Be brief.", "sampling": {"temperature": 0}}}}}
    )
    assert chat.send("x").params.temperature == 0
    assert said(chat)[0] == ("system", "Be brief.")


def test_adapters_are_offered_and_passed_on(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chat.lab.get()
    monkeypatch.setattr(type(model), "adapters", property(lambda self: ("pirate",)), raising=False)
    page(chat, "look")
    assert chat.lab_state["models"][0]["adapters"] == ["pirate"]
    page(chat, "pick", model="echo", adapter="pirate")
    asked: dict[str, Any] = {}
    real = model.stream
    monkeypatch.setattr(model, "stream", lambda said, **options: asked.update(options) or real(said))
    chat.send("hello")
    assert asked["adapter"] == "pirate"
    page(chat, "pick", model="", adapter="")
    assert (chat.model, chat.adapter) == ("", "")


def test_export(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.sampling = {"temperature": 0, "stop": ["END"]}
    chat.system = "Be 'brief'."
    chat.send("one {{x}}")
    chat.send("two")
    assert chat.to_cells() == [
        """%%llm -m echo -t 0 --stop END -s 'Be '"'"'brief'"'"'.'\none \\{{x}}""",
        "%%llm -m echo -c -t 0 --stop END\ntwo",
    ]
    chat.system = "Two\nlines."
    code = chat.to_cells()[0]
    compile(code, "cell", "exec")
    assert "'Two\\nlines.'" in code
    page(chat, "export", kind="row")
    row = json.loads(chat.comm.customs("export")[-1]["pieces"][0])
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    again = Chat(lab=chat.lab, messages=row["messages"])
    assert again.messages == chat.messages
    with pytest.raises(BadInputError, match="valid variable name"):
        keep("not a name", 1)


def test_static_form_is_escaped(chat: Any, bench: Any) -> None:
    bench.engine.say = lambda prompt, params: "<script>alert(1)</script> [x](javascript:alert(1)) <img src=x onerror=y>"
    chat.send("<b onclick=1>hi</b>")
    bundle = chat.static()
    assert set(bundle) == {"text/plain", "text/markdown", "text/html"}
    for bad in ("<script", "<img", "<b onclick"):
        assert bad not in bundle["text/html"]
        assert bad not in bundle["text/markdown"]
    assert "javascript:" not in bundle["text/markdown"]


def test_the_static_form_resumes_and_keeps_versions_without_passing_errors(chat: Any, bench: Any) -> None:
    texts = ["first *one*", "second\n\n<i>one</i>"]
    bench.engine.say = lambda *_: texts.pop(0)
    chat.send("hello")
    chat.regenerate().result()
    page(chat, "rate", turn_id="none")
    assert chat.problem["message"]
    bundle = chat.static()
    for form in bundle.values():
        assert f"%llm chat --resume {chat.conversation}" in form
        assert "Unknown turn" not in form
    for form in ("text/html", "text/markdown"):
        assert "version 2 of 2; the other:" in bundle[form]
        assert "first &#42;one&#42;" in bundle[form]
        assert "<i>" not in bundle[form]
    page(chat, "export", kind="markdown")
    assert "--resume" not in chat.comm.customs("export")[-1]["pieces"][0]
    view, _ = chat._view_bundle()
    assert "turns" not in view["text/plain"]


def test_threads_may_speak_at_once(chat: Any) -> None:
    """A front end may use several threads of the kernel (subshells)."""
    chat.send("hello")
    leaf = chat.leaf
    threads = [
        threading.Thread(target=page, args=(chat, "rate"), kwargs={"turn_id": leaf, "rating": i % 2}) for i in range(8)
    ]
    threads += [threading.Thread(target=page, args=(chat, "look")) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert chat.problem == {}
    assert len(chat.turns) == 2


def test_a_thought_streams_and_stays_folded_beside_the_answer(chat: Any, bench: Any) -> None:
    bench.engine.facts = replace(bench.engine.facts, chat_template=TEMPLATE + "<think>{# </think> #}")
    bench.lab.get()._facts = bench.engine.facts
    texts = ["Is <b>it</b>?</think>", "Yes."]
    bench.engine.say = lambda *_: texts.pop(0)
    chat.send("Really?")
    deltas = chat.comm.customs("delta")
    assert "".join(m["thought"] for m in deltas if "thought" in m) == "Is <b>it</b>?"
    assert "".join(m.get("text", "") for m in deltas) == "Yes."
    turn = chat.turns[1]
    assert (turn["text"], turn["thought"]) == ("Yes.", "Is <b>it</b>?")
    assert turn["facts"]["thought_tokens"] > 0
    assert chat.messages[1].get("reasoning_content") == "Is <b>it</b>?"
    assert "<details>" in chat.html()
    assert "<b>it</b>" not in chat.html()
    assert "<details>" in chat.markdown()


def _thinks(bench: Any, template: str = "<think>{# </think> #}", rounds: int = 1) -> None:
    """Let the scripted model think, then answer."""
    bench.engine.facts = replace(bench.engine.facts, chat_template=TEMPLATE + template)
    bench.lab.get()._facts = bench.engine.facts
    texts = ["Is it?</think>", "Yes."] * rounds
    bench.engine.say = lambda *_: texts.pop(0)


SWITCH = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{# </think> #}"


@pytest.mark.parametrize(("given", "kept", "opened"), [(False, "off", False), ("on", "on", True), (None, "", True)])
def test_think_of_a_chat(bench: Any, wire: None, given: Any, kept: str, opened: bool) -> None:
    _thinks(bench, SWITCH, rounds=2)
    chat = Chat(lab=bench.lab, think=given)
    assert chat.think == kept
    chat.send("Really?")
    assert bench.engine.prompts[0].endswith("<think>") == opened
    chat.close()


def test_think_is_exported_kept_and_checked(bench: Any, wire: None) -> None:
    _thinks(bench)
    bench.engine.say = lambda *_: texts.pop(0)
    texts = ["one two three four five six</think>", "Yes."]
    chat = Chat(lab=bench.lab, think=2)
    done = chat.send("Really?")
    assert done.choices[0].reasoning_cut
    assert "--think 2" in chat.to_cells()[0]
    chat.close()
    later = Chat(lab=bench.lab, resume=True)
    assert later.think == "2"
    later.think = "often"
    with pytest.raises(BadInputError, match="think is on, off, low"):
        later.send("x")
    with pytest.raises(BadInputError, match="think is on, off, low"):
        Chat(lab=bench.lab, think="often")
    later.close()


def test_a_resumed_chat_shows_its_thoughts_and_the_template_decides_on_sending_them(bench: Any, wire: None) -> None:
    _thinks(bench, rounds=2)
    chat = Chat(lab=bench.lab)
    chat.send("Really?")
    chat.close()
    later = Chat(lab=bench.lab, resume=chat.conversation)
    assert later.turns[1]["thought"] == "Is it?"
    assert "<details>" in later.html()
    later.send("And now?")
    assert "Is it?" not in bench.engine.prompts[2]  # this template reads no reasoning_content
    later.close()


def test_a_chat_resumed_from_a_cells_conversation_has_its_thoughts(bench: Any, wire: None) -> None:
    _thinks(bench)
    bench.lab.runlog.add(bench.lab.get().generate("Really?"), source="cell", conversation="cell1")
    chat = Chat(lab=bench.lab, resume="cell1")
    assert [(turn["text"], turn.get("thought", "")) for turn in chat.turns] == [("Really?", ""), ("Yes.", "Is it?")]
    chat.close()
