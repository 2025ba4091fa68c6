"""The magics over real engines: in a shell in this process, and in a kernel of its own as front ends have it."""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher

from llmlab.magics import register, unregister
from llmlab.types import Completion

# A guard: to its end, the answer takes a minute. bench/latency.py measures the interrupt.
INTERRUPTED_WITHIN_S = 10


@pytest.fixture
def asked(shell, shared_lab, model, capsys) -> Iterator[Any]:
    """Cells run over a loaded nano (each engine in turn); gives a function from a cell to (result, last display)."""
    plain = shell.display_pub
    shell.reset()
    shell.display_pub = CapturingDisplayPublisher()
    register(shell, lambda: shared_lab)
    shared_lab.use(model.name)

    def run(cell: str) -> tuple[Any, dict[str, str]]:
        shell.display_pub.outputs.clear()
        ran = shell.run_cell(cell, store_history=True)
        assert ran.success, capsys.readouterr().out
        outputs = shell.display_pub.outputs
        return ran.result, outputs[-1]["data"] if outputs else {}

    run.model = model
    run.printed = lambda: capsys.readouterr().out
    yield run
    unregister(shell)
    shell.display_pub = plain


def test_a_cell_asks_a_real_engine(asked):
    result, data = asked("%%llm -t 0 --max-tokens 24 -o first\nWho are you?")
    assert isinstance(result, Completion)
    assert result.text == asked.model.generate("Who are you?", temperature=0, max_tokens=24).text
    assert result.text.strip()
    assert f"{asked.model.name} · {asked.model.engine} · {asked.model.quant}" in data["text/plain"]
    assert set(data) == {"text/plain", "text/markdown"}


def test_a_conversation_goes_on(asked):
    asked("%%llm -t 0 --max-tokens 24\nHello! My name is Ada.")
    result, _ = asked("%%llm -t 0 --max-tokens 24 -c\nWhat is my name?")
    assert [m.role for m in result.messages] == ["user", "assistant", "user"]
    history, _ = asked("%llm history")
    assert "What is my name?" in history.text()


def test_an_answer_that_was_cut_off_continues(asked):
    prompt = "Tell me a story about a dog."
    part, data = asked(f"%%llm -t 0 --max-tokens 10\n{prompt}")
    assert "stopped at max_tokens (10); continue with %llm --continue-answer" in data["text/plain"]
    full = asked.model.generate(prompt, temperature=0, max_tokens=30)
    asked.printed()
    result, data = asked("%llm --continue-answer --max-tokens 20 -o longer")
    assert re.sub(r"Out\[\d+\]: ", "", asked.printed()).strip() == ""  # the answer is displayed once
    assert result.text == full.text
    assert data["text/plain"].startswith(part.text)
    history, _ = asked("%llm history")
    assert history.text().count(prompt) == 1
    # The body is added first; the conversation goes on with the longer answer.
    result, _ = asked("%%llm --continue-answer --max-tokens 4\n And then")
    assert result.prefix == f"{full.text} And then"
    result, _ = asked("%%llm -c --max-tokens 4\nWhy?")
    assert [m.role for m in result.messages] == ["user", "assistant", "user"]
    assert result.messages[1].content.startswith(f"{full.text} And then")


def test_sampling_options_and_a_prefix_reach_a_real_engine(asked):
    result, _ = asked(
        "%%llm -t 0 --max-tokens 4 --prefix 'Well,\\n' --repetition-penalty 1.2 --logit-bias 5=-3 --bad-words dog\n"
        "Hello!"
    )
    assert result.text.startswith("Well,\n")
    assert (result.params.repetition_penalty, result.params.logit_bias, result.params.bad_words) == (
        1.2, {5: -3.0}, ("dog",),
    )  # fmt: skip


def test_logprobs_and_several_answers(asked):
    result, data = asked("%%llm -t 0 --max-tokens 4 --logprobs 2\nHello!")
    assert len(result.logprobs) == len(result.token_ids)
    assert "probability" in data["text/plain"]
    result, data = asked("%%llm -t 1 --seed 1 -n 2 --max-tokens 8\nHello!")
    assert "[2 of 2]" in data["text/plain"]
    assert len(result.choices) == 2


def test_raw_text_goes_without_a_template(asked):
    result, _ = asked("%%llm --raw -t 0 --max-tokens 4\nOnce upon a {{time")
    assert result.prompt == "Once upon a {{time"
    assert result.messages == ()


def test_ls_shows_estimated_and_measured_memory(asked):
    listed, _ = asked("%llm ls -v")
    assert asked.model in listed
    row = next(line for line in listed.text().split("\n") if line.startswith("*"))
    assert asked.model.engine in row
    assert row.count(" MB") + row.count(" GB") >= 3


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(asked, shell, capsys):
    shell.user_ns["long"] = "word " * 5000
    ran = shell.run_cell("%%llm\n{{long}}")
    out = capsys.readouterr().out
    assert not ran.success
    assert out.strip().count("\n") == 0
    assert "context of 2,048" in out


def test_a_reload_of_the_extension_keeps_the_session(kernel):
    reply, _, _ = kernel.run(
        "%load_ext llmlab\n%llm load nano --engine llamacpp --as kept\n%llm lora add pirate pirate"
    )
    assert reply["status"] == "ok", reply
    kernel.run("import llmlab\nmodel = llmlab.lab().get()\n_ = model.generate('Hi', max_tokens=2)")
    kernel.run("%%llm -t 0 --max-tokens 4\nHello!")
    reply, messages, _ = kernel.run(
        "%reload_ext llmlab\n%llm use kept\n"
        "print(llmlab.lab().get() is model, model.loaded, model.adapters, len(llmlab.lab().history.conversations))"
    )
    assert reply["status"] == "ok", reply
    text = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert "True True ('pirate',) 1" in text
    reply, messages, _ = kernel.run("%unload_ext llmlab\nprint(model.loaded)")
    assert "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream").strip() == "False"


def test_load_shows_one_line_and_gives_the_model(bench):
    ran = bench.run("%llm load nano --engine llamacpp --as small --ctx 512")
    assert ran.success, ran.out
    assert ran.result is bench.lab.current
    shown = ran.displays[-1]["data"]
    assert shown["text/plain"].startswith("small · llamacpp · F16 · ")
    assert " · ctx 512 · loaded in " in shown["text/plain"]
    assert len({d["transient"]["display_id"] for d in ran.displays}) == 1
    assert ran.out.removeprefix("Out[1]: ") == ""
    # Shown when it is asked for, and when it isn't the cell's result.
    assert "architecture" in bench.run("bench_model = _\nbench_model").out
    ran = bench.run("m = %llm load nano --engine llamacpp\nm")
    assert "architecture" in ran.out


# -- a kernel of its own -------------------------------------------------------------------------


class Kernel:
    """A kernel process and what it says."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=environment)

    def run(
        self, code: str, interrupt_when: Any = None, timeout: float = 120
    ) -> tuple[dict[str, Any], list[Any], float]:
        """Run a cell; returns its reply, its messages, and the seconds from an interrupt to the reply."""
        sent = self.client.execute(code)
        messages: list[Any] = []
        interrupted = 0.0
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != sent:
                continue
            messages.append(message)
            if interrupt_when is not None and not interrupted and interrupt_when(message):
                interrupted = time.monotonic()
                self.manager.interrupt_kernel()
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                took = time.monotonic() - interrupted if interrupted else 0.0
                break
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == sent:
                return reply["content"], messages, took

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    started = Kernel()
    yield started
    started.close()


def test_an_interrupt_stops_an_answer_and_the_next_cell_works(kernel):
    reply, _, _ = kernel.run("%load_ext llmlab\n%llm load nano --engine llamacpp")
    assert reply["status"] == "ok", reply
    reply, messages, seconds = kernel.run(
        "%%llm -n 200 -t 1.2 --max-tokens 1000 -o part\nTell me a story.",
        interrupt_when=lambda m: m["msg_type"] == "display_data",
    )
    assert reply["status"] == "ok", reply
    assert 0 < seconds < INTERRUPTED_WITHIN_S, "it ended before it was interrupted, or long after"
    last = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data")][-1]["content"]["data"]
    assert last["text/plain"].rstrip("]").endswith("interrupted")
    reply, messages, _ = kernel.run("print(part.choices[-1].finish_reason, len(part.choices))")
    text = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert text.split() == ["interrupted", "200"]
    reply, messages, _ = kernel.run("%%llm -t 0 --max-tokens 8\nHello!")
    assert reply["status"] == "ok", reply
    assert any("stop" in m["content"]["data"]["text/plain"] for m in messages if "data" in m["content"])


def test_tab_and_question_mark_through_the_kernel(kernel):
    kernel.run("%load_ext llmlab")
    kernel.client.complete("%llm load nano --eng")
    reply = _shell_reply(kernel, "complete_reply")
    assert reply["matches"] == ["--engine"]
    kernel.client.complete("%%llm --max-t")
    assert _shell_reply(kernel, "complete_reply")["matches"] == ["--max-tokens"]
    reply, _, _ = kernel.run("%llm?")
    assert "%llm load" in reply["payload"][0]["data"]["text/plain"]


def _shell_reply(kernel: Kernel, kind: str) -> dict[str, Any]:
    while True:
        try:
            message = kernel.client.get_shell_msg(timeout=60)
        except queue.Empty:
            pytest.fail(f"no {kind}")
        if message["msg_type"] == kind:
            return message["content"]


def test_an_executed_notebook_holds_one_clean_output_a_cell(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    papermill = pytest.importorskip("papermill")
    cells = [
        "%load_ext llmlab\n%llm load nano --engine llamacpp",
        "%%llm -t 0 --max-tokens 300\nTell me a story.",
        "%llm ls",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "in.ipynb")
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, log_output=False)
    load, ask, listed = [cell["outputs"] for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells]
    assert [o["output_type"] for o in load] == ["display_data"]
    assert load[0]["data"]["text/plain"].startswith("nano · llamacpp · F16")
    assert [o["output_type"] for o in ask] == ["display_data"]
    assert set(ask[0]["data"]) == {"text/plain", "text/markdown"}
    assert "nano · llamacpp · F16" in ask[0]["data"]["text/markdown"]
    assert [o["output_type"] for o in listed] == ["execute_result"]
    assert set(listed[0]["data"]) == {"text/plain", "text/html"}


def test_a_log_of_papermill_ends_with_the_whole_answer(tmp_path, caplog):
    """It holds each display as it was first shown: of a streamed answer that was the first piece alone."""
    nbformat = pytest.importorskip("nbformat")
    papermill = pytest.importorskip("papermill")
    cells = ["%load_ext llmlab\n%llm load nano --engine llamacpp", "%%llm -t 0 --max-tokens 300\nTell me a story."]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "in.ipynb")
    with caplog.at_level("INFO", logger="papermill"):
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, log_output=True)
    kept = nbformat.read(tmp_path / "out.ipynb", 4).cells[1]["outputs"]
    said = [record.getMessage() for record in caplog.records if "nano · llamacpp" in record.getMessage()]
    assert [one["data"]["text/plain"] for one in kept] == said[-1:]
    assert len(said[-1]) > 200


def test_a_failing_cell_fails_papermill(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    papermill = pytest.importorskip("papermill")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%load_ext llmlab\n%llm load nanoo")])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "in.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="Did you mean 'nano'"):
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False)


def test_the_bench_shows_a_table_and_a_plot(asked):
    result, data = asked("%llm bench --concurrency 1,2 --prompt-tokens 16 --max-tokens 4 --rounds 1")
    assert list(result.frame["concurrency"]) == [1, 2]
    assert "HConcatChart" in data["text/plain"]
    assert "tokens/s" in repr(result)
