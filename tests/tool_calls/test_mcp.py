"""MCP servers as tools: a small stdio server, started, called and ended."""

from __future__ import annotations

import json
import sys

import pytest

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


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "server.py").write_text(SERVER)
    file = folder / "mcp.json"
    entry = {"command": sys.executable, "args": [str(folder / "server.py")]}
    broken = {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]}
    file.write_text(json.dumps({"mcpServers": {"sums": entry, "broken": broken, "empty": {}}}))
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


def test_a_server_ends_when_it_is_closed():
    mcp.mcp_tools("sums")
    task = mcp._SERVERS._sessions["sums"].task
    mcp._SERVERS.close()
    assert task.done()
    assert mcp.mcp_tools("sums")
