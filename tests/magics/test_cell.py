"""`%%llm` in a real shell, over a scripted engine: options, variables, history, displays, interrupts."""

from __future__ import annotations

import _thread
import time

import pytest
from IPython.core.displaypub import DisplayPublisher

from llmlab.errors import GenerationError
from llmlab.types import Completion

BAD_CELLS = [
    ("%%llm --max-token 3\nhi", "Unknown option '--max-token'", "Did you mean '--max-tokens'?"),
    ("%%llm --schema x\nhi", "no variable or file 'x'", "Define it in a cell"),
    ("%%llm -t warm\nhi", "--temperature must be a number, got 'warm'", "-t, --temperature TEMP: 0 is greedy"),
    ("%%llm -t -1\nhi", "temperature", "-1"),
    ("%%llm --max-tokens 0\nhi", "max_tokens", "1 or more"),
    ("%%llm --top-p 2\nhi", "top_p", "at most 1"),
    ("%%llm -n 0\nhi", "n must be", "1 to 1024"),
    ("%%llm -f html\nhi", "'html'", "md, text, json, code"),
    ("%%llm -m other\nhi", "Unknown loaded model 'other'", "nano"),
    ("%%llm -o 2x\nhi", "takes a variable's name, got '2x'", "-o answer"),
    ("%%llm -o class\nhi", "takes a variable's name, got 'class'", "-o answer"),
    ("%%llm -o\nhi", "--out takes one argument, got none", "-o, --out VAR"),
    ("%%llm -t 0\n   \n", "no text below its first line", "prompt"),
    ("%%llm words\nhi", "unexpected 'words'", "Usage: %%llm"),
    ("%%llm -c --new\nhi", "-c continues", "one of them"),
    ("%%llm --raw -c\nhi", "--raw sends a text", "without --raw"),
    ("%%llm --raw -s no\nhi", "there is no system prompt", "Remove"),
    ("%%llm\n{{nam}}", "no variable 'nam'", "Did you mean 'name'?"),
    ("%%llm\n{{f(x)}}", "isn't a name", "--raw"),
    ('%%llm\n{{"a": 1}}', "isn't a name", "--raw"),
    ("%%llm\n{{name.age}}", "AttributeError", "--raw"),
    ("%%llm\n{{name[99]}}", "IndexError", "--raw"),
    ("%%llm -s it's\nhi", "quote isn't closed", "double quotes"),
]


def stop_when(bench, reached):
    """Press Ctrl-C in the next cell when `reached(text, number)` is true of a display."""
    shown, publish = bench.shell.display_pub, bench.shell.display_pub.publish

    def show(data, *given, **named):
        publish(data, *given, **named)
        if reached(data["text/plain"], len(shown.outputs)):
            _thread.interrupt_main()

    shown.publish = show


@pytest.mark.parametrize(("cell", "says", "way_out"), BAD_CELLS, ids=[repr(cell) for cell, _, _ in BAD_CELLS])
def test_bad_cells_fail_with_one_clean_line_before_anything_runs(bench, cell, says, way_out):
    engine = bench.add()
    bench.run("name = 'Ada'")
    message = bench.fails(cell)
    assert says in message
    assert way_out in message
    assert engine.prompts == []
    assert bench.lab.history.conversations == []
    assert bench.shell.display_pub.outputs == []


def test_an_empty_cell_is_refused(bench):
    assert not bench.run("%%llm").success


def test_no_model_says_how_to_load(bench):
    assert "%llm load nano" in bench.fails("%%llm\nhi")


def test_the_answer_is_one_display_with_text_and_markdown(bench):
    engine = bench.add()
    engine.say = lambda prompt, request: "**Paris**, of course."
    ran = bench.run("%%llm -t 0\nWhat is the capital of France?")
    assert ran.success
    assert engine.prompts == ["<user>What is the capital of France?<assistant>"]
    first, *updates = ran.displays
    assert not first["update"]
    assert all(update["update"] for update in updates)
    assert {d["transient"]["display_id"] for d in ran.displays} == {first["transient"]["display_id"]}
    data = ran.displays[-1]["data"]
    assert set(data) == {"text/plain", "text/markdown"}
    assert data["text/markdown"].startswith("**Paris**, of course.\n\n<small>nano · llamacpp · F16 · 21 tokens · ")
    assert data["text/plain"].startswith("**Paris**, of course.\n\n[nano · ")
    assert data["text/plain"].endswith(" · stop]")
    # Nothing is shown twice, and the value is there all the same.
    assert ran.out.removeprefix("Out[1]: ") == ""
    assert isinstance(ran.result, Completion)
    assert bench.shell.user_ns["_"] is ran.result


def test_a_completion_asked_for_by_name_is_shown(bench):
    bench.add()
    bench.run("%%llm -o r\nhi")
    ran = bench.run("r")
    assert "You said" in ran.out
    assert ran.result is bench.shell.user_ns["r"]


def test_streaming_updates_about_ten_times_a_second(bench):
    engine = bench.add()
    engine.say = lambda prompt, request: "x" * 60_000
    engine.pace = 0.01
    stop_when(bench, lambda text, shown: shown == 5)
    started = time.monotonic()
    ran = bench.run("%%llm\nhi")
    took = time.monotonic() - started
    assert 5 <= len(ran.displays) <= took * 10 + 3
    lengths = [len(d["data"]["text/plain"]) for d in ran.displays]
    assert lengths == sorted(lengths)


def test_no_stream_shows_once(bench):
    engine = bench.add()
    engine.pace = 0.01
    assert len(bench.run("%%llm --no-stream\nhi").displays) == 1


def test_options_reach_the_engine(bench):
    engine = bench.add()
    ran = bench.run(
        "%%llm -t 0.5 --max-tokens 5 --top-p 0.9 --top-k 7 --min-p 0.1 --seed 3 "
        "--stop END '\\n\\n' --stop x -s \"Be brief.\"\nhi"
    )
    assert ran.success, ran.out
    params = engine.params[0]
    assert (params.temperature, params.max_tokens, params.top_p, params.top_k) == (0.5, 5, 0.9, 7)
    assert (params.min_p, params.seed) == (0.1, 3)
    assert params.stop == ("END", "\n\n", "x")
    assert engine.prompts == ["<system>Be brief.<user>hi<assistant>"]
    assert "stopped at max_tokens (5)" in ran.displays[-1]["data"]["text/plain"]


def test_the_penalties_reach_the_engine(bench):
    engine = bench.add()
    ran = bench.run(
        "%%llm --repetition-penalty 1.1 --presence-penalty 0.5 --frequency-penalty -0.5 --min-tokens 2 --typical-p 0.9 "
        "--top-n-sigma 1.5 --dry-base 2 --dry-allowed-length 3 --xtc-probability 0.1 --xtc-threshold 0.2 "
        "--logit-bias 5=1.5 6=-100 --stop-token-ids 7 8\nhi"
    )
    assert ran.success, ran.out
    params = engine.params[0]
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.1, 0.5, -0.5)
    assert (params.min_tokens, params.typical_p, params.top_n_sigma) == (2, 0.9, 1.5)
    assert (params.dry_base, params.dry_allowed_length, params.xtc_probability, params.xtc_threshold) == (
        2,
        3,
        0.1,
        0.2,
    )
    assert (params.logit_bias, params.stop_token_ids) == ({5: 1.5, 6: -100.0}, (7, 8))
    assert "--logit-bias takes ID=BIAS, got '5'" in bench.fails("%%llm --logit-bias 5\nhi")


@pytest.mark.parametrize("option", ["-c", "--new", "--raw", "--choice a,b", "-n 2", "--prefix x"])
def test_continue_answer_takes_no_option_of_another_prompt(bench, option):
    bench.add()
    assert "can't be combined with" in bench.fails(f"%llm --continue-answer {option}")


def test_continue_answer_needs_an_answer(bench):
    bench.add()
    assert "no answer to continue" in bench.fails("%llm --continue-answer")
    bench.run("%%llm\nhi")
    assert "finish_reason 'stop'" in bench.fails("%llm --continue-answer")


def test_variables_go_into_the_body_and_the_line(bench):
    engine = bench.add()
    bench.run("class P: age = 36\nname, who, rows, tone = 'Ada {{who}}', P(), [{'k': 'v'}], 'kind words'")
    bench.run('%%llm -s $tone\n{{name}} is {{ who.age }}: {{rows[0]["k"]}} {{rows[-1]}} \\{{name}} {one} $name')
    assert engine.prompts == ["<system>kind words<user>Ada {{who}} is 36: v {'k': 'v'} {{name}} {one} $name<assistant>"]


def test_a_data_frame_goes_in_whole(bench):
    engine = bench.add()
    bench.run("import pandas as pd\ntable = pd.DataFrame({'n': range(200)})")
    bench.run("%%llm --max-tokens 1\n{{table}}")
    assert "199" in engine.prompts[0]
    assert "100" in engine.prompts[0]
    assert "..." not in engine.prompts[0]


def test_raw_sends_the_body_as_it_is(bench):
    engine = bench.add()
    ran = bench.run("%%llm --raw\n  Once {{upon}} a \\{{ time\n\n")
    assert ran.success, ran.out
    assert engine.prompts == ["  Once {{upon}} a \\{{ time\n"]
    assert bench.lab.history.conversations == []


def test_out_keeps_the_completion(bench):
    bench.add()
    ran = bench.run("%%llm -o answer\nhi")
    assert bench.shell.user_ns["answer"] is ran.result
    assert ran.result.text == "You said: <user>hi<assistant>"


def test_a_conversation_goes_on_with_c(bench):
    engine = bench.add()
    engine.say = lambda prompt, request: "ok"
    bench.run("%%llm -s short\nmy name is Ada")
    bench.run("%%llm -c\nwhat is it?")
    assert engine.prompts[1] == "<system>short<user>my name is Ada<assistant>ok<user>what is it?<assistant>"
    assert len(bench.lab.history.conversations) == 1
    bench.run("%%llm -c -s short\nand now?")
    assert "another system prompt" in bench.fails("%%llm -c -s long\nhi")
    assert len(bench.lab.history.current.completions) == 3
    # A cell without -c stands alone, and so does one after `history --new`.
    bench.run("%%llm\nfresh")
    assert engine.prompts[-1] == "<user>fresh<assistant>"
    bench.run("%llm history --new")
    bench.run("%%llm -c\nagain fresh")
    assert engine.prompts[-1] == "<user>again fresh<assistant>"
    bench.run("%%llm --new\nthird")
    assert len(bench.lab.history.conversations) == 4
    shown = bench.run("%llm history --all").out
    assert shown.count("Conversation") == 4
    assert "my name is Ada" in shown


def test_c_without_a_conversation_starts_one(bench):
    engine = bench.add()
    assert bench.run("%%llm -c -s short\nhi").success
    assert engine.prompts == ["<system>short<user>hi<assistant>"]


def test_several_answers_are_labelled(bench):
    engine = bench.add()
    engine.say = lambda prompt, request: f"answer {request.index}"
    ran = bench.run("%%llm -n 3\nhi")
    data = ran.displays[-1]["data"]
    for number in range(3):
        assert f"[{number + 1} of 3]\nanswer {number}" in data["text/plain"]
        assert f"**{number + 1} of 3**\n\nanswer {number}" in data["text/markdown"]
    assert len(ran.result.choices) == 3


def test_another_model_by_name(bench):
    first = bench.add("first")
    second = bench.add("second")
    bench.run("%%llm -m first\nhi")
    assert (len(first.prompts), len(second.prompts)) == (1, 0)
    assert bench.lab.current.name == "second"


def test_logprobs_are_shown_in_both_forms(bench):
    bench.add()
    ran = bench.run("%%llm --logprobs 2 --max-tokens 3\nhi")
    data = ran.displays[-1]["data"]
    assert "probability" in data["text/plain"]
    assert "81.9 %" in data["text/plain"]
    assert "| token | logprob | probability | most likely |" in data["text/markdown"]
    assert "&#124;" in data["text/markdown"]
    assert ran.result.logprobs[0].top


@pytest.mark.parametrize(
    ("fmt", "says", "plain", "markdown"),
    [
        ("json", '{"a": [1, 2]}', '{\n  "a": [\n    1,\n    2\n  ]\n}', '```json\n{\n  "a"'),
        ("json", "not json <b>", "Not valid JSON. The text:\nnot json <b>", "```\nnot json <b>\n```"),
        ("code", "```python\nprint(1)\n```", "print(1)\n\n[", "```python\nprint(1)\n```"),
        ("code", "x = '```'", "x = '```'", "````\nx = '```'\n````"),
        ("text", "# not *md* <b>", "# not *md* <b>", "```\n# not *md* <b>\n```"),
    ],
)
def test_formats(bench, fmt, says, plain, markdown):
    engine = bench.add()
    engine.say = lambda prompt, request: says
    data = bench.run(f"%%llm -f {fmt}\nhi").displays[-1]["data"]
    assert data["text/plain"].startswith(plain)
    assert markdown in data["text/markdown"]
    if fmt == "text":
        assert "&lt;b&gt;" in data["text/html"]
        assert "<b>" not in data["text/html"]


def test_an_empty_answer_says_so(bench):
    engine = bench.add()
    engine.say = lambda prompt, request: ""
    ran = bench.run("%%llm\nhi")
    assert ran.displays[-1]["data"]["text/plain"].startswith("(no text)\n\n[nano · ")


def test_an_engine_failure_fails_the_cell_and_keeps_what_came_on_display(bench):
    engine = bench.add()
    engine.pace = 0.02
    engine.say = lambda prompt, request: "half of it"
    engine.error = GenerationError("llamacpp failed while it decoded.", "See %llm logs.")
    ran = bench.run("%%llm -o r\nhi")
    assert not ran.success
    assert ran.out.strip() == "GenerationError: llamacpp failed while it decoded. See %llm logs."
    assert ran.displays[-1]["data"]["text/plain"].startswith("half")
    assert "r" not in bench.shell.user_ns
    assert bench.lab.history.conversations == []


def test_an_interrupt_keeps_the_partial_answer(bench):
    engine = bench.add()
    engine.say = lambda prompt, request: "so far"
    engine.hang = True
    stop_when(bench, lambda text, shown: text == "so far")
    ran = bench.run("%%llm -o part\nhi")
    assert ran.success
    part = bench.shell.user_ns["part"]
    assert part is ran.result
    assert (part.text, part.finish_reason) == ("so far", "interrupted")
    assert engine.cancelled.is_set()
    assert ran.displays[-1]["data"]["text/plain"].startswith("so far\n\n[nano")
    assert ran.displays[-1]["data"]["text/plain"].endswith("· interrupted]")
    assert bench.lab.history.current.messages[-1].content == "so far"
    engine.hang = False
    assert bench.run("%%llm -c\nnext").success


def test_a_terminal_gets_the_text_as_it_comes(bench):
    engine = bench.add()
    engine.pace = 0.01
    engine.say = lambda prompt, request: "word \x1b[31mred " * 3
    bench.shell.display_pub = DisplayPublisher(shell=bench.shell)
    bench.shell.display_pub.outputs = []
    ran = bench.run("%%llm\nhi")
    assert ran.success
    assert "\x1b" not in ran.out
    assert ran.out.startswith("word [31mred word [31mred word [31mred ")
    assert ran.out.count("word") == 3
    assert ran.out.count("nano · llamacpp") == 1
    assert ran.out.endswith(" · stop\n")


def test_help_of_the_cell(bench):
    page = bench.run("%%llm --help\nx").result.text()
    assert page == bench.run("%llm help cell").result.text() == bench.run("%llm help %%llm").result.text()
