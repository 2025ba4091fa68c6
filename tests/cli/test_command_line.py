"""The command `llmlab`: what it prints, its exit status, Ctrl-C; and the files that call it."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import nbformat
import psutil
import pytest
import yaml

import llmlab
from llmlab.cli import main, parser

ROOT = Path(__file__).parent.parent.parent
WORKFLOW = ROOT / "docs" / "ci" / "llmlab-notebooks.yml"
LONG = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
import os
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""


def test_a_run_prints_its_tables_and_exits_0(notebook, out, capsys):
    path = notebook("a", "import llmlab\nllmlab.record('twice', 2 * X, 's')", parameters="X = 1\nMODEL = 'nano'")
    assert main(["run", str(path), "-p", "X", "4", "--model", "mine", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^a: passed in .*, 2 of 2 cells$", printed, re.MULTILINE)
    assert re.search(r"^twice +8 +s +a$", printed, re.MULTILINE)
    assert 'MODEL = "mine"' in (out / "a.ipynb").read_text().replace('\\"', '"')


def test_a_failing_notebook_exits_1_and_says_all(notebook, out, capsys):
    path = notebook("bad", "%load_ext llmlab\n%llm load nano --engine llamacpp", "1 / 0")
    assert main(["run", str(path), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "cell 2, In [2]: ZeroDivisionError: division by zero" in printed
    assert "    1 / 0\n" in printed
    assert "Cell In[2], line 1" in printed
    assert re.search(r"Last lines of the log \(.*llamacpp-nano\.log\):\n    .+", printed)
    assert "1 notebook: 1 failed" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-p", "MODL", "x"], "Did you mean 'MODEL'?"),
        (["-p", "MODEL", "x", "--model", "y"], "MODEL is given twice"),
        (["-p", "MODEL", "[x"], "closed"),
        (["--kernel", "julia"], "Unknown kernel 'julia'"),
    ],
)
def test_a_wrong_call_exits_2_in_one_line(notebook, out, capsys, arguments, says):
    path = notebook("a", "1", parameters="MODEL = 'nano'")
    assert main(["run", str(path), "--out", str(out), *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("llmlab run: ")
    assert says in told
    assert told.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing(notebook, out, sent, status):
    path = notebook("long", LONG, "never = True")
    pids = path.parent / "pids"
    command = [sys.executable, "-m", "llmlab", "run", str(path), "--out", str(out), "--junit", str(out / "j.xml")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 240
        while not (pids.exists() and pids.read_text().endswith("\n")):
            assert running.poll() is None, running.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(psutil.pid_exists(pid) for pid in started)
        running.send_signal(sent)
        printed, _ = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == status
    assert not [pid for pid in started if psutil.pid_exists(pid)]
    assert "cell 1: interrupted" in printed
    assert "Traceback" not in printed
    failure = ET.parse(out / "j.xml").getroot().find(".//failure")
    assert failure.get("message") == "cell 1: interrupted"


FOLLOWED = """
import os, pathlib, sys, time
from llmlab.quant.process import follow
program = [sys.executable, "-c", "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(600)"]
follow(program, lambda line: pathlib.Path("pids").write_text(f"{os.getpid()} {line}\\n"))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_run_that_is_killed_leaves_no_kernel_and_nothing_that_llmlab_started_in_it(notebook, out):
    path = notebook("long", FOLLOWED)
    pids = path.parent / "pids"
    running = subprocess.Popen([sys.executable, "-m", "llmlab", "run", str(path), "--out", str(out)])
    try:
        deadline = time.monotonic() + 240
        while not (pids.exists() and pids.read_text().endswith("\n")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        assert len(started) == 3
    finally:
        running.kill()
        running.wait()
    _, left = psutil.wait_procs(started, timeout=60)
    for process in left:
        process.kill()
    assert not left


def test_version_doctor_and_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"llmlab {llmlab.__version__}\n"
    assert main(["doctor"]) in (0, 1)
    assert re.search(r"^\w+ +Python +3\.", capsys.readouterr().out, re.MULTILINE)
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "%%" not in capsys.readouterr().out


def commands():
    """Every line of the workflow that calls llmlab, and of the help's examples."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["notebooks"]["steps"]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    lines += [line.strip() for line in (ROOT / "docs" / "running.md").read_text().splitlines()]
    return [line for line in lines if re.match(r"llmlab (run|doctor|-)", line)]


def test_the_workflow_is_one():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert {"push", "pull_request"} <= set(workflow[True])  # YAML 1.1 reads `on` as true, and so does GitHub's schema
    steps = workflow["jobs"]["notebooks"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert any("llmlab run" in step.get("run", "") and "--junit" in step["run"] for step in steps)


@pytest.mark.parametrize("line", commands())
def test_every_documented_command_parses(line):
    parser().parse_args(shlex.split(line, comments=True)[1:])


def hooks():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    return {hook["id"]: shlex.split(hook["entry"]) for hook in repository["hooks"]}


def test_the_hooks_are_tools_of_the_environment():
    tools = Path(sys.executable).parent
    for entry in hooks().values():
        assert Path(entry[0]).parent == Path(".venv/bin")
        assert (tools / Path(entry[0]).name).exists()


def test_a_notebook_with_outputs_is_refused_by_lint_and_stripped_by_the_hook(tmp_path):
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")], execution_count=1)
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    hook = str(Path(sys.executable).parent / Path(hooks()["nbstripout"][0]).name)
    verify = [hook, "--verify", str(path)]
    assert "nbstripout --verify notebooks/*.ipynb" in (ROOT / "Makefile").read_text()
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 1
    subprocess.run([hook, str(path)], check=True)
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0


def test_serve_answers_until_it_is_stopped():
    command = [
        sys.executable,
        "-m",
        "llmlab",
        "serve",
        *("-x", "n_threads=1"),
        "nano",
        "--engine",
        "llamacpp",
        "--port",
        "0",
        "--lora",
        "pirate=pirate",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        lines = [child.stdout.readline(), child.stdout.readline()]
        url = re.search(r"serving at (\S+) ", lines[1]).group(1)
        assert [one["id"] for one in httpx.get(f"{url}/models").json()["data"]] == ["nano", "nano:pirate"]
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 143


def test_a_wrong_adapter_is_refused_before_a_load(capsys):
    assert main(["serve", "nano", "--port", "0", "--lora", "pirate"]) == 2
    assert main(["serve", "nano", "--port", "0", "-x", "n_threads"]) == 2
    assert "--lora takes NAME=SOURCE" in capsys.readouterr().err
