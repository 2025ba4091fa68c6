"""MCP servers as tools: a small stdio server, started, called and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import llmlab
from llmlab.errors import BadInputError, LlmLabError, UnknownNameError
from llmlab.tool_calls import Toolbox, mcp
from tests.tool_calls.test_families import PLAIN

SERVER = '''
from mcp.server import MCPServer
server = MCPServer("sums")

@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)

server.run("stdio")
'''
MORE = '''
import os
import anyio

@server.tool()
def leave() -> str:
    """End the server."""
    os._exit(3)

@server.tool()
async def wait(seconds: float) -> str:
    """Wait."""
    await anyio.sleep(seconds)
    return "waited"

@server.tool()
def process() -> int:
    """The server's process."""
    return os.getpid()
'''

# A process that starts a server and calls a tool that blocks the server's main thread: its loop never sees that stdin
# was closed. C code that keeps the GIL would block all of its threads.
STUCK = '''
import os, sys, time
from pathlib import Path
from mcp.server import MCPServer
server = MCPServer("stuck")

@server.tool()
async def block() -> str:
    """Block."""
    Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(600)
    return ""

server.run("stdio")
'''
CALLS = """
import asyncio
from llmlab.tool_calls import Toolbox
asyncio.run(Toolbox("mcp:stuck").find("block").call({}))
"""

SILENT = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""


def call(name, **arguments):
    """Call a tool of the server as a generation does."""
    return asyncio.run(Toolbox("mcp:odd").find(name).call(arguments))


def gone(process):
    """Whether a process has ended, or ends soon."""
    return eventually(lambda: not Path(f"/proc/{process}").exists())


def eventually(is_so, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "server.py").write_text(SERVER)
    (folder / "odd.py").write_text(SERVER.replace("server.run", f"{MORE}\nserver.run"))
    file = folder / "mcp.json"
    entry = {"command": sys.executable, "args": [str(folder / "server.py")]}
    broken = {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]}
    silent = {"command": sys.executable, "args": ["-c", SILENT, str(folder / "silent.pid")]}
    chatty = {"command": sys.executable, "args": ["-c", "print('not JSON', flush=True)"]}
    nowhere = {"url": "http://127.0.0.1:9/mcp"}
    servers = {
        "sums": entry,
        "more sums": entry,
        "odd": {"command": sys.executable, "args": [str(folder / "odd.py")]},
        "broken": broken,
        "empty": {},
        "silent": silent,
        "chatty": chatty,
        "nowhere": nowhere,
    }
    file.write_text(json.dumps({"mcpServers": servers}))
    yield file
    mcp._SERVERS.close()


@pytest.fixture(autouse=True)
def chosen(config, monkeypatch):
    monkeypatch.setenv("LLMLAB_MCP", str(config))


def test_a_server_is_started_called_and_kept(saying):
    model = saying(PLAIN, "3.", PLAIN, "3 again.")
    done = model.generate("1 + 2?", tools="mcp:sums")
    assert [(step.name, step.result, step.error) for step in done.steps] == [("add", "3", "")]
    assert done.text == "3."
    task = mcp._SERVERS._sessions["sums"].task
    assert model.generate("1 + 2?", tools=["mcp:sums"]).text == "3 again."
    assert mcp._SERVERS._sessions["sums"].task is task


def test_its_tools_have_their_schemas():
    box = Toolbox("mcp:sums")
    assert box.names == ("add", "fail")
    assert box.find("add").description == "Add two numbers."
    assert set(box.find("add").parameters["properties"]) == {"a", "b"}


def test_tools_of_the_same_name_have_the_name_of_their_server_in_front():
    box = Toolbox(["mcp:sums", "mcp:more sums"])
    assert box.names == ("add", "fail", "more_sums_add", "more_sums_fail")
    assert asyncio.run(box.find("more_sums_add").call({"a": 1, "b": 2})) == "3"
    assert len(mcp._SERVERS._sessions.keys() & {"sums", "more sums"}) == 2
    with pytest.raises(BadInputError, match="Two tools have the same name"):
        Toolbox(["mcp:sums", "mcp:sums"])


def test_errors_of_a_tool_and_wrong_arguments_are_told_to_the_model(saying):
    calls = [{"name": "fail", "arguments": {"why": "no luck"}}, {"name": "add", "arguments": {"a": "x"}}]
    done = saying("\n".join(map(json.dumps, calls)), "Sorry.").generate("Go", tools="mcp:sums")
    assert "Error executing tool fail" in done.steps[0].error
    assert "'b' is a required property" in done.steps[1].error


def test_what_is_wrong_is_said():
    with pytest.raises(UnknownNameError, match="MCP server") as caught:
        mcp.mcp_tools("sum")
    assert caught.value.closest == "sums"
    with pytest.raises(LlmLabError, match="can't be started"):
        mcp.mcp_tools("broken")
    with pytest.raises(LlmLabError, match="no command and no url"):
        mcp.mcp_tools("empty")


def test_a_server_that_ends_during_a_call_is_started_again_at_its_next_use(saying):
    first = int(call("process"))
    done = saying(json.dumps({"name": "leave", "arguments": {}}), PLAIN, "3.").generate("Go", tools="mcp:odd")
    assert "the MCP server odd has ended" in done.steps[0].error
    assert "mcp-odd.log" in done.steps[0].error
    # The tools that the generation has call the new server.
    assert [(step.name, step.result) for step in done.steps[1:]] == [("add", "3")]
    assert int(call("process")) != first


def test_a_server_that_ended_while_it_was_not_used_is_started_again():
    first = int(call("process"))
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert int(call("process")) != first


def test_a_call_that_is_given_up_leaves_the_server_usable(saying):
    first = int(call("process"))
    slow = json.dumps({"name": "wait", "arguments": {"seconds": 600}})
    done = saying(slow, "Late.").generate("Go", tools="mcp:odd", tool_timeout=0.2)
    assert done.steps[0].error == "stopped after 0.2 s"
    assert eventually(lambda: not mcp._SERVERS._sessions["odd"].busy)
    assert int(call("process")) == first


@pytest.mark.parametrize("name", ["broken", "nowhere", "chatty"])
def test_a_server_that_does_not_start_is_one_line_in_ipython_and_its_messages_are_in_its_log(name, capfd):
    with pytest.raises(LlmLabError, match=f"The MCP server {name} can't be started") as caught:
        mcp.mcp_tools(name)
    # IPython prints the complete traceback of an error with an exception group in its context.
    assert caught.value.__context__ is None
    assert capfd.readouterr().err == ""
    assert name != "chatty" or "Failed to parse" in mcp._log_file(name).read_text()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_an_interrupted_start_ends_the_server(config):
    pid = config.parent / "silent.pid"

    def interrupt():
        eventually(lambda: pid.exists() and pid.read_text())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        mcp.mcp_tools("silent")
    assert gone(pid.read_text())


def test_a_server_that_does_not_answer_in_time_is_ended(config, monkeypatch):
    pid = config.parent / "silent.pid"
    pid.unlink(missing_ok=True)
    for limit in (2.0, 10.0, 50.0):  # on a busy machine Python itself may take two seconds to start
        monkeypatch.setattr(mcp, "START_S", limit)
        with pytest.raises(LlmLabError, match=f"did not start within {limit:g} s"):
            mcp.mcp_tools("silent")
        if pid.exists():
            break
    assert gone(pid.read_text())


def test_a_hanging_server_that_nobody_uses_is_started_again(monkeypatch):
    first = int(call("process"))
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr(mcp, "ANSWER_S", 0.5)
    assert int(call("process")) != first
    assert gone(first)


def test_a_server_is_busy_until_its_answer_is_there():
    """It was until a moment later: one that hung then was never started again, and the next call waited for ever."""
    call("process")
    session, job = mcp._SERVERS._sessions["odd"], mcp._Job(None)
    session._running[job] = job
    assert session.busy
    job.finish("done")
    assert not session.busy
    del session._running[job]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_blocked_server_ends_with_a_process_that_is_killed(tmp_path, sent):
    (tmp_path / "server.py").write_text(STUCK)
    pid = tmp_path / "pid"
    entry = {"command": sys.executable, "args": [str(tmp_path / "server.py"), str(pid)]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"stuck": entry}}))
    env = os.environ | {"LLMLAB_MCP": str(tmp_path / "mcp.json"), "PYTHONPATH": str(Path(llmlab.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "-c", CALLS], env=env, start_new_session=True)
    try:
        assert eventually(lambda: (pid.exists() and pid.read_text()) or parent.poll() is not None, 240)
        assert Path(f"/proc/{pid.read_text()}").exists()
        parent.send_signal(sent)
        parent.wait(60)
        ended = gone(pid.read_text())
        if not ended:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        assert ended
    finally:
        parent.kill()


@pytest.mark.parametrize("command", ["no-such-program", "./no/such/program", "/"])
def test_a_program_that_does_not_exist_is_named(tmp_path, monkeypatch, command):
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"lost": {"command": command}}}))
    monkeypatch.setenv("LLMLAB_MCP", str(tmp_path / "mcp.json"))
    with pytest.raises(LlmLabError, match=f"can't be started: (FileNotFound|Permission)Error: .*{command!r}"):
        mcp.mcp_tools("lost")


def test_a_program_is_found_in_its_own_folder_and_path(tmp_path, monkeypatch):
    script = tmp_path / "server"
    script.write_text(f"#!{sys.executable}\n{SERVER}")
    script.chmod(0o700)
    entries = {
        "by folder": {"command": "./server", "cwd": str(tmp_path)},
        "by path": {"command": "server", "env": {"PATH": str(tmp_path)}},
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": entries}))
    monkeypatch.setenv("LLMLAB_MCP", str(tmp_path / "mcp.json"))
    for name in entries:
        assert [tool.name for tool in mcp.mcp_tools(name)] == ["add", "fail"]


def test_closing_waits_for_the_servers():
    process = int(call("process"))
    mcp._SERVERS.close()
    assert gone(process)


def test_a_file_without_servers_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "mcp.json"
    monkeypatch.setenv("LLMLAB_MCP", str(file))
    with pytest.raises(BadInputError, match=r"no mcp\.json names one"):
        mcp.mcp_tools("sums")
    file.write_text("{}")
    with pytest.raises(BadInputError, match="names no MCP servers"):
        mcp.mcp_tools("sums")
    file.write_text("{")
    with pytest.raises(BadInputError, match="can't be read"):
        mcp.mcp_tools("sums")


def test_a_server_ends_when_it_is_closed(monkeypatch):
    monkeypatch.setattr(mcp, "_CLOSE_S", 60.0)
    mcp.mcp_tools("sums")
    task = mcp._SERVERS._sessions["sums"].task
    mcp._SERVERS.close()
    assert task.done()
    assert mcp.mcp_tools("sums")
