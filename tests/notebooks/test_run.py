"""Notebooks run headless: results, figures, failures told in full, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.notebooks import parameters, processes
from llmlab.notebooks.figures import Record

ORPHAN = """
import subprocess, sys
child = "import setproctitle, time; setproctitle.setproctitle('engine core'); time.sleep(600)"
start = f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True, stdout=subprocess.DEVNULL)"
parent = f"import subprocess, sys; print({start}.pid, flush=True)"
pid = int(subprocess.run([sys.executable, "-c", parent], check=True, stdout=subprocess.PIPE).stdout)
open("pid", "w").write(str(pid))
import time; time.sleep(1)
"""


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# C code that keeps the GIL: no thread of the kernel runs, not even the one that looks for its parent.
BLOCKED = """
import ctypes, os
from pathlib import Path
Path("pid.part").write_text(str(os.getpid()))
os.rename("pid.part", "pid")
ctypes.PyDLL(None).sleep(600)
"""


def test_passes_records_and_runs_in_its_own_folder(notebook, out):
    path = notebook(
        "{a} figure",
        "import os, llmlab\nllmlab.record('twice', 2 * X, 's')\nllmlab.record('folder', os.path.basename(os.getcwd()))",
        parameters="X = 1\nD = {\n    'a': 1,\n}",
        folder="mine",
    )
    runs = llmlab.run_notebooks(path, parameters={"X": 21}, out=out, suffix="-more", progress=False)
    (run,) = runs
    assert runs.ok
    assert (run.name, run.status, run.ran, run.cells) == ("{a} figure-more", "passed", 2, 2)
    assert run.executed == out / "{a} figure-more.ipynb"
    assert run.records == [Record("twice", 42, "s"), Record("folder", "mine")]
    assert list(runs.frame.columns) == ["notebook", "name", "value", "unit"]
    assert "1 notebook: 1 passed" in repr(runs)
    assert "twice" in repr(runs)
    assert "<table" in runs._repr_html_()


def test_a_failure_names_the_cell_and_holds_the_traceback_and_the_engine_log(notebook, out):
    path = notebook(
        "bad",
        "%load_ext llmlab\n%llm load nano --engine llamacpp",
        "def deep(n):\n    return deep(n - 1) if n else 1 / 0\ndeep(50)",
        "never = True",
        parameters="X = 1",
    )
    runs = llmlab.run_notebooks(path, parameters={"X": 2}, out=out, progress=False)
    failure = runs[0].failure
    # Counted as in the notebook that was given: papermill puts a cell of its own before it.
    assert failure.cell == 3
    assert failure.reason == "ZeroDivisionError: division by zero"
    assert (runs[0].ran, runs[0].cells) == (2, 4)
    shown = repr(runs)
    assert "    deep(50)" in shown
    assert "----> 3 deep(50)" in failure.traceback
    assert "more ..." in failure.traceback
    assert failure.traceback.endswith("ZeroDivisionError: division by zero")
    assert len(failure.traceback.splitlines()) < 40
    assert "\x1b" not in shown
    assert failure.log_path.parent == out / "logs" / "bad"
    assert "llama" in failure.log
    assert failure.log.splitlines()[-1] in shown


def test_an_llmlab_error_is_one_line(notebook, out):
    path = notebook("bad", "import llmlab\nllmlab.load('nanoo')")
    failure = llmlab.run_notebooks(path, out=out, progress=False)[0].failure
    assert failure.reason.startswith("UnknownNameError: Unknown model 'nanoo'")
    assert len(failure.traceback.splitlines()) == 1


def test_a_process_left_behind_fails_the_notebook_and_is_killed(notebook, out, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    path = notebook("leaks", ORPHAN)
    (run,) = llmlab.run_notebooks(path, out=out, progress=False)
    pid = int((path.parent / "pid").read_text())
    assert run.status == "failed"
    assert f"pid {pid}" in run.failure.reason
    assert gone(pid)


def test_a_kernel_that_dies_takes_all_it_started_along(notebook, out, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    path = notebook("dies", ORPHAN, "import os\nos.abort()", "never = True")
    (run,) = llmlab.run_notebooks(path, out=out, progress=False)
    assert "the kernel died with SIGABRT" in run.failure.reason
    assert (run.failure.cell, run.ran) == (2, 1)
    # Python's own last words, from the kernel's output.
    assert "Fatal Python error: Aborted" in run.failure.log
    assert gone(int((path.parent / "pid").read_text()))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_blocked_kernel_ends_with_a_run_that_is_killed(notebook, out, sent):
    path = notebook("blocked", BLOCKED)
    env = os.environ | {"PYTHONPATH": str(Path(llmlab.__file__).parents[1])}
    command = [sys.executable, "-m", "llmlab", "run", str(path), "--out", str(out)]
    parent = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    pid = path.parent / "pid"
    try:
        end = time.monotonic() + 240
        while not pid.exists() and parent.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        kernel = psutil.Process(int(pid.read_text()))
        parent.send_signal(sent)
        parent.wait(60)
        left = psutil.wait_procs([kernel], timeout=60)[1]
        for process in left:
            process.kill()
        assert not left
    finally:
        parent.kill()


def test_a_cell_that_takes_too_long_ends_the_notebook_and_the_next_runs(notebook, out):
    paths = [notebook("slow", "import time\ntime.sleep(600)"), notebook("quick", "1 + 1")]
    runs = llmlab.run_notebooks(*paths, timeout=5, out=out, progress=False)
    assert runs[0].failure.line == "cell 1: timed out after 5 s"
    assert runs[1].status == "passed"


def test_junit_holds_times_records_failures_and_what_was_not_run(notebook, out):
    paths = [
        notebook("a", "import llmlab\nllmlab.record('speed', 12.5, 'tokens/s')\nllmlab.record('same', True)"),
        notebook("b", "raise ValueError('<no> \\x00\\x1b[31m&')"),
        notebook("c", "1"),
    ]
    seen = []
    runs = llmlab.run_notebooks(
        *paths, out=out, junit=out / "deep" / "j.xml", exit_first=True, progress=False, done=seen.append
    )
    assert [run.status for run in runs] == ["passed", "failed", "not run"]
    assert seen == list(runs[:2])
    assert not runs.ok
    (suite,) = ET.parse(out / "deep" / "j.xml").getroot()
    assert {k: suite.get(k) for k in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }
    first, second, third = suite
    assert float(first.get("time")) > 0
    assert [(p.get("name"), p.get("value")) for p in first.iter("property")] == [
        ("speed (tokens/s)", "12.5"),
        ("same", "true"),
    ]
    assert second.find("failure").get("message").startswith("cell 1, In [1]: ValueError: <no>")
    assert "raise ValueError" in second.find("failure").text
    assert third.find("skipped") is not None


def test_an_unknown_parameter_is_refused_before_anything_runs(notebook, out):
    paths = [
        notebook("a", "1", parameters="MODEL = 'nano'\nENGINE: str = 'both'"),
        notebook("b", "1", parameters="MODEL = 1"),
    ]
    with pytest.raises(UnknownNameError) as error:
        llmlab.run_notebooks(*paths, parameters={"ENGIN": "vllm"}, out=out)
    assert error.value.closest == "ENGINE"
    assert "a.ipynb" in str(error.value)
    # A name that only one of them has is no parameter of the run.
    with pytest.raises(UnknownNameError, match=r"b\.ipynb"):
        llmlab.run_notebooks(*paths, parameters={"ENGINE": "vllm"}, out=out)
    with pytest.raises(BadInputError, match="has no parameters"):
        llmlab.run_notebooks(notebook("c", "1"), parameters={"MODEL": "nano"}, out=out)
    assert not out.exists()


def test_what_to_run_is_named_by_file_folder_and_pattern(notebook, out, tmp_path):
    for name in ("a", "b"):
        notebook(name, "1", folder="some")
    some = tmp_path / "some"
    assert len(llmlab.run_notebooks(some, some / "a.ipynb", f"{some}/*.ipynb", out=out, progress=False)) == 2
    with pytest.raises(UnknownNameError) as error:
        llmlab.run_notebooks(some / "aa.ipynb", out=out)
    assert error.value.known == ("a.ipynb", "b.ipynb")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kernel": "julia"}, "Unknown kernel 'julia'"),
        ({"timeout": 0}, "more than 0 s"),
        ({"out": "."}, "would overwrite it"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(notebook, tmp_path, monkeypatch, options, why):
    monkeypatch.chdir(tmp_path)
    path = notebook("a", "1")
    before = path.read_text()
    with pytest.raises(BadInputError, match=why):
        llmlab.run_notebooks(path, **options)
    assert path.read_text() == before
    assert not (tmp_path / "out").exists()


def test_two_notebooks_of_one_name_are_refused(notebook, out):
    with pytest.raises(BadInputError, match="same name"):
        llmlab.run_notebooks(notebook("a", "1", folder="x"), notebook("a", "1", folder="y"), out=out)


def test_nothing_and_no_notebook_are_refused(tmp_path, out):
    (tmp_path / "text.ipynb").write_text("hello")
    for given, why in [((), "No notebooks were given"), ((tmp_path / "text.ipynb",), "is not a notebook")]:
        with pytest.raises(BadInputError, match=why):
            llmlab.run_notebooks(*given, out=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="There are no notebooks"):
        llmlab.run_notebooks(tmp_path / "empty", out=out)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nano", "nano"),
        ("True", True),
        ("false", False),
        ("None", None),
        ("3", 3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("[F16, Q8_0]", ["F16", "Q8_0"]),
        ("['F16', 2]", ["F16", 2]),
        ("{pirate: ./p}", {"pirate": "./p"}),
        ("'7'", "7"),
        ("no", "no"),
        ("2026-11-24", "2026-11-24"),
        ("hf:org/name:Q8_0", "hf:org/name:Q8_0"),
        ("", ""),
    ],
)
def test_a_parameters_type(text, value):
    found = parameters.value(text)
    assert found == value
    assert type(found) is type(value)


def test_a_list_that_is_not_closed_is_refused():
    with pytest.raises(BadInputError, match="closed"):
        parameters.value("[F16, Q8_0")


def test_a_recorded_notebook_runs_without_its_engine(notebook, out, tmp_path):
    """Its kernel can't import llama.cpp in the replay, and fails without one."""
    path = notebook(
        "recorded",
        "import sys\nif not RECORDING:\n    sys.modules['llama_cpp'] = None",
        "%load_ext llmlab\n%llm load nano --engine llamacpp",
        "import llmlab\ndone = llmlab.lab().current.generate('What is the capital of France?', temperature=0)\n"
        "llmlab.record('text', done.text)\nllmlab.record('replayed', done.timings.replayed)",
        parameters="RECORDING = True",
    )
    answers = tmp_path / "answers.jsonl"
    recorded = llmlab.run_notebooks(path, out=out, record=answers, progress=False)
    assert recorded.ok, recorded[0].failure
    parameters = {"RECORDING": False}
    assert not llmlab.run_notebooks(path, out=out, parameters=parameters, progress=False).ok
    again = llmlab.run_notebooks(path, out=out, parameters=parameters, replay=answers, progress=False)
    assert again.ok, again[0].failure
    assert [one.value for one in recorded[0].records] == ["The capital of France is Paris.", False]
    assert [one.value for one in again[0].records] == ["The capital of France is Paris.", True]
    with pytest.raises(BadInputError, match="both record and replay"):
        llmlab.run_notebooks(path, out=out, record=answers, replay=answers)
