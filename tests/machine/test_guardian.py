"""Programs beside the kernel end with it, however it ends; and nothing else in the package starts a process."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import llmlab
from llmlab.machine import guardian
from llmlab.quant.process import follow

PACKAGE = Path(llmlab.__file__).parent

# The program that is followed: it tells its process id and that of a child of its own, and then never ends.
ENDLESS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""

# The process that is killed. The pids are told when the program runs.
FOLLOWS = f"""
import os, sys, threading, time
from llmlab.quant.process import follow
told = threading.Event()
def tell(line):
    print("pids", line, flush=True)
    told.set()
def work():
    follow([sys.executable, "-c", {ENDLESS!r}], tell)
"""
HOWS = {
    "main thread": "work()",
    "worker thread": "threading.Thread(target=work, daemon=True).start(); time.sleep(600)",
    # The fork keeps the pipe's end open, and outlives its parent.
    "fork beside it": """
threading.Thread(target=work, daemon=True).start()
told.wait()
pid = os.fork()
if not pid:
    time.sleep(600)
print("fork", pid, flush=True)
time.sleep(600)
""",
    "spawn": """
from pathlib import Path
import multiprocessing
from llmlab.engines.vllm.child import own_session
if __name__ == "__main__":
    from tests.machine.test_guardian import endless_core
    with own_session(Path("core.log")):
        core = multiprocessing.get_context("spawn").Process(target=endless_core, args=(os.path.abspath("pids"),))
        core.start()
        while not os.path.exists("pids"):
            time.sleep(0.05)
    print("pids", open("pids").read(), flush=True)
    time.sleep(600)
""",
}


# Modules and functions that start processes.
STARTERS = {"subprocess", "multiprocessing", "pty", "mcp.client.stdio", "jupyter_client.manager"}
STARTERS |= {"create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell", "open_process"}


def endless_core(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(f"{path}.part").write_text(f"{os.getpid()} {child.pid}")
    Path(f"{path}.part").rename(path)
    time.sleep(600)


def gone(pids, within_s=60):
    """Whether processes end; those that don't are killed."""
    end = time.monotonic() + within_s
    while time.monotonic() < end and any(alive(pid) for pid in pids):
        time.sleep(0.05)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("how", HOWS)
def test_what_was_started_ends_with_its_parent(tmp_path, how, sent):
    script = tmp_path / "parent.py"
    script.write_text(FOLLOWS + HOWS[how])
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env, cwd=tmp_path, start_new_session=True
    )
    fork = None
    try:
        pids = [int(word) for word in parent.stdout.readline().split()[1:]]
        assert len(pids) == 2
        if how.startswith("fork"):
            fork = int(parent.stdout.readline().split()[1])
        guards = [psutil.Process(pids[0]).ppid()]
        assert all(alive(pid) for pid in pids + guards)
        # A kernel's provider kills the whole process group.
        os.killpg(parent.pid, sent) if how == "spawn" else parent.send_signal(sent)
        parent.wait(60)
        assert gone(pids + guards)
    finally:
        if fork is not None:
            os.kill(fork, signal.SIGKILL)
        parent.kill()
        parent.stdout.close()


def test_a_parent_that_was_gone_before_the_guardian_looked():
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__, "1", "-", sys.executable, "-c", "import time; time.sleep(600)"],
        start_new_session=True,
    )
    assert process.wait(60) == -signal.SIGKILL


def test_an_interrupt_ends_the_program_and_its_children():
    pids = []

    def told(line):
        pids.extend(map(int, line.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow([sys.executable, "-c", ENDLESS], told)
    assert len(pids) == 2
    assert gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_a_guardian_that_is_killed_takes_the_program_along():
    pids = []

    def told(line):
        pids.extend(map(int, line.split()))
        os.kill(psutil.Process(pids[0]).ppid(), signal.SIGKILL)
        os.kill(pids[1], signal.SIGKILL)  # holds the pipe that is read, too

    assert follow([sys.executable, "-c", ENDLESS], told) == -signal.SIGKILL
    assert gone(pids[:1])


@pytest.mark.parametrize(
    ("code", "status"),
    [("", 0), ("raise SystemExit(3)", 3), ("import os; os.abort()", -signal.SIGABRT), ("1/0", 1)],
)
def test_the_programs_own_status_and_lines_come_through(code, status):
    lines = []
    assert follow([sys.executable, "-c", f"print('hello'); print('ä', flush=True)\n{code}"], lines.append) == status
    assert lines[:2] == ["hello", "ä"]


def test_the_program_hears_interrupts_but_not_the_notebooks(tmp_path):
    lines = []
    code = "import signal, os, sys; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, os.getsid(0))"
    assert follow([sys.executable, "-c", code], lines.append) == 0
    heard, session = lines[0].split()
    assert heard == "True"
    assert int(session) != os.getsid(0)


def test_a_program_with_a_stdin_of_its_own_reads_it_and_closes_its_pipes(tmp_path):
    # The PYTHONPATH of a program with files called like Python's own modules isn't the guardian's.
    (tmp_path / "signal.py").write_text("raise SystemExit('the wrong signal')")
    code = "import os, sys; os.write(1, sys.stdin.buffer.read().upper()); os.close(1); import time; time.sleep(600)"
    process = subprocess.Popen(
        guardian.command([sys.executable, "-I", "-c", code], stdin=True),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        process.stdin.write(b"hello")
        process.stdin.close()
        assert process.stdout.read() == b"HELLO"
        assert process.poll() is None
    finally:
        guardian.end(process.pid)
        process.wait()
        process.stdout.close()


TRACKED = """
import multiprocessing, os
from pathlib import Path
from llmlab.engines.vllm.child import own_session
if __name__ == "__main__":
    with own_session(Path("core.log")):
        core = multiprocessing.get_context("spawn").Process(target=os.getpid)
        core.start()
        core.join()
    from multiprocessing import resource_tracker
    print(core.exitcode, Path(f"/proc/{resource_tracker._resource_tracker._pid}/cmdline").read_text().split(chr(0)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_multiprocessings_tracker_outlives_its_parent(tmp_path):
    (tmp_path / "parent.py").write_text(TRACKED)
    out = subprocess.run(
        [sys.executable, "parent.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    ).stdout
    assert out.startswith("0 ")
    assert "resource_tracker" in out
    assert "guardian" not in out


def test_nothing_else_in_the_package_starts_a_process():
    """A new place that does must tie its child's life to the parent's, and be listed here."""
    known = {"machine/guardian.py", "quant/process.py", "engines/vllm/child.py", "engines/llamacpp/trial.py"}
    known |= {"deploy/proof.py", "tool_calls/mcp.py", "notebooks/kernel.py"}
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                names += (
                    ["subprocess"] if node.attr.startswith(("fork", "system", "popen", "spawn", "posix_sp")) else []
                )
            names += ["subprocess"] if isinstance(node, ast.Attribute) and node.attr in STARTERS else []
            if any(name in STARTERS or name.partition(".")[0] in STARTERS for name in names):
                found.add(file.relative_to(PACKAGE).as_posix())
    assert found == known
