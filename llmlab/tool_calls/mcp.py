"""Tools of MCP servers (Model Context Protocol), which a standard `mcp.json` names.

A server is started at its first use and kept for the process. It is opened, used and closed in one long-lived task on a
thread of its own: a session that is closed in another task than it was opened in doesn't end.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.tool_calls.tool import Tool

PREFIX = "mcp:"
START_S = 60.0
"""A server that takes longer to start is given up: `npx` and `uvx` may install it first."""
_CLOSE_S = 5.0
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


def config_files() -> list[Path]:
    """The files in which servers are looked up: $LLMLAB_MCP, mcp.json and .mcp.json here, and the user's."""
    given = os.environ.get("LLMLAB_MCP")
    own = config.data_dir() / "mcp.json"
    return [Path(given)] if given else [Path("mcp.json"), Path(".mcp.json"), Path(".vscode/mcp.json"), own]


def servers(files: Sequence[Path] | None = None) -> dict[str, Mapping[str, Any]]:
    """The servers that the files name; the first file with a name counts.

    Raises:
        BadInputError: a file isn't JSON, or has no servers.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for file in files if files is not None else config_files():
        if not file.is_file():
            continue
        try:
            data = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise BadInputError(f"{file} can't be read: {error}.", "It must be JSON.") from None
        # VS Code calls the key `servers`.
        listed = data.get("mcpServers", data.get("servers")) if isinstance(data, dict) else None
        if not isinstance(listed, dict):
            raise BadInputError(
                f"{file} names no MCP servers.", 'For example {"mcpServers": {"files": {"command": "...", "args": []}}}'
            )
        for name, entry in listed.items():
            if isinstance(entry, dict):
                found.setdefault(str(name), {**entry, "cwd": entry.get("cwd") or None})
    return found


def mcp_tools(name: str) -> list[Tool]:
    """The tools of an MCP server, which is started if necessary.

    Args:
        name: the server's name in mcp.json.

    Returns:
        The tools, for `generate(..., tools=...)`.

    Raises:
        BadInputError: no mcp.json names the server.
        LlmLabError: it can't be started, or the package mcp isn't installed.
    """
    known = servers()
    if name not in known:
        if not known:
            where = ", ".join(str(file) for file in config_files())
            raise BadInputError(
                f"There is no MCP server {name!r}: no mcp.json names one. Looked in {where}.",
                'Write one: {"mcpServers": {"files": {"command": "...", "args": []}}}',
            )
        raise unknown("MCP server", name, list(known))
    return _SERVERS.tools(name, known[name])


@dataclass(frozen=True)
class _RemoteTool(Tool):
    """A tool whose arguments are validated by its own JSON schema, and which runs in its server."""

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        from jsonschema import Draft202012Validator

        wrong = [
            f"{'.'.join(map(str, one.absolute_path)) or 'arguments'}: {one.message}"
            for one in Draft202012Validator(self.parameters).iter_errors(dict(arguments))
        ]
        if wrong:
            raise ValueError(f"the arguments don't fit: {'; '.join(wrong[:5])[:400]}")
        return dict(arguments)


@dataclass
class _Session:
    """One server: its task, the queue of calls to it, and its tools."""

    entry: Mapping[str, Any]
    ready: concurrent.futures.Future[list[Any]] = field(default_factory=concurrent.futures.Future)
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    task: concurrent.futures.Future[None] | None = None


class Servers:
    """The running servers, on one event loop in a thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def tools(self, name: str, entry: Mapping[str, Any]) -> list[Tool]:
        """The tools of a server; starts it, or restarts it if it has ended or its entry has changed."""
        try:
            _imports.load("mcp")
        except ImportError as error:
            raise LlmLabError("MCP servers need the package mcp.", "pip install 'llmlab[mcp]'") from error
        with self._lock:
            session = self._sessions.get(name)
            ended = session is not None and session.task is not None and session.task.done()
            if session is None or ended or session.entry != entry:
                if session is not None:
                    self._end(session)
                session = self._sessions[name] = self._start(name, entry)
        try:
            listed = session.ready.result(START_S)
        except concurrent.futures.TimeoutError:
            self._end(session)
            raise LlmLabError(f"The MCP server {name} did not start within {START_S:g} s.", _log_hint(name)) from None
        except Exception as error:
            raise LlmLabError(f"The MCP server {name} can't be started: {_reason(error)}.", _log_hint(name)) from error
        return [self._tool(session, one) for one in listed]

    def close(self) -> None:
        """End all servers."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            self._end(session)
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    # -- internals -----------------------------------------------------------------------------

    def _start(self, name: str, entry: Mapping[str, Any]) -> _Session:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="llmlab-mcp", daemon=True).start()
        session = _Session(entry)
        session.task = asyncio.run_coroutine_threadsafe(self._serve(name, session), self._loop)
        return session

    def _end(self, session: _Session) -> None:
        if self._loop is None or session.task is None:
            return
        self._loop.call_soon_threadsafe(session.queue.put_nowait, None)
        with contextlib.suppress(Exception):
            session.task.result(_CLOSE_S)

    async def _serve(self, name: str, session: _Session) -> None:
        """Open, use and close a session, in one task."""
        running: set[asyncio.Task[None]] = set()
        try:
            with _log_file(name).open("a", encoding="utf-8", errors="replace") as log:
                async with _client(session.entry, log) as client:
                    session.ready.set_result(await _listed(client))
                    while (job := await session.queue.get()) is not None:
                        task = asyncio.ensure_future(_answer(client, *job))
                        running.add(task)
                        task.add_done_callback(running.discard)
                    for task in running:
                        task.cancel()
        except BaseException as error:
            if not session.ready.done():
                session.ready.set_exception(error)
            raise

    def _tool(self, session: _Session, listed: Any) -> Tool:
        async def call(**arguments: Any) -> Any:
            if self._loop is None or session.task is None or session.task.done():
                raise RuntimeError("the MCP server has ended")
            answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
            self._loop.call_soon_threadsafe(session.queue.put_nowait, (listed.name, arguments, answer))
            return await asyncio.wrap_future(answer)

        schema = dict(listed.input_schema)
        parameters = {"type": "object", "properties": schema.get("properties", {}), **schema}
        return _RemoteTool(_UNFIT.sub("_", listed.name)[:64], listed.description or "", parameters, call, is_async=True)


def _client(entry: Mapping[str, Any], log: Any) -> Any:
    """A client for an entry of mcp.json: a program, or a URL."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    if entry.get("url"):
        return Client(str(entry["url"]))
    if not isinstance(entry.get("command"), str):
        raise ValueError("its entry in mcp.json has no command and no url")
    names = ("command", "args", "env", "cwd")
    values = {key: entry[key] for key in names if entry.get(key) is not None}
    return Client(stdio_client(StdioServerParameters(**values), errlog=log))


async def _listed(client: Any) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            return found


async def _answer(client: Any, name: str, arguments: dict[str, Any], answer: concurrent.futures.Future[Any]) -> None:
    try:
        result = await client.call_tool(name, arguments)
        text = "\n".join(_shown(block) for block in result.content)
        if result.is_error:
            raise RuntimeError(text or "the MCP server reports an error")
        value = text if text or result.structured_content is None else result.structured_content
        if not answer.cancelled():
            answer.set_result(value)
    except BaseException as error:  # noqa: BLE001 - becomes the call's error
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            answer.set_exception(error if isinstance(error, Exception) else RuntimeError("the MCP server has ended"))


def _shown(block: Any) -> str:
    if getattr(block, "text", None) is not None:
        return str(block.text)
    resource = getattr(block, "resource", None)
    if resource is not None and getattr(resource, "text", None) is not None:
        return str(resource.text)
    return (
        f"[{block.type}{', ' + block.mime_type if getattr(block, 'mime_type', None) else ''}; not shown to the model]"
    )


def _log_file(name: str) -> Path:
    folder = config.log_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"mcp-{_UNFIT.sub('_', name)}.log"


def _log_hint(name: str) -> str:
    return f"Its messages are in {_log_file(name)}."


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300].removesuffix(": ")


_SERVERS = Servers()
atexit.register(_SERVERS.close)
