"""Tools of MCP servers (Model Context Protocol), which a standard `mcp.json` names.

A server is started at its first use and kept for the process. It is opened, used and closed in one long-lived task on a
thread of its own: a session that is closed in another task than it was opened in doesn't end.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import errno
import functools
import inspect
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from llmlab import _imports, config
from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.machine import guardian
from llmlab.tool_calls.tool import Tool

PREFIX = "mcp:"
START_S = 60.0
"""A server that takes longer to start is given up: `npx` and `uvx` may install it first."""
ANSWER_S = 5.0
"""A server that isn't busy and takes longer to list its tools is started again."""
# Jupyter kills a kernel 5 s after it asked it to end; the package gives a server 4 s.
_CLOSE_S = 4.5
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
        if not config.is_file(file):
            continue
        try:
            data = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise BadInputError(f"{file} can't be read: {error.strerror}.", "Make it readable.") from None
        except ValueError as error:
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

    server: str = ""

    @property
    def full_name(self) -> str:
        """Two servers may have a tool of the same name: files_search."""
        return f"{_UNFIT.sub('_', self.server)}_{self.name}"[:64]

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        _imports.load("jsonschema")
        from jsonschema import Draft202012Validator

        wrong = [
            f"{'.'.join(map(str, one.absolute_path)) or 'arguments'}: {one.message}"
            for one in Draft202012Validator(self.parameters).iter_errors(dict(arguments))
        ]
        if wrong:
            raise ValueError(f"the arguments don't fit: {'; '.join(wrong[:5])[:400]}")
        return dict(arguments)


class ServerEndedError(RuntimeError):
    """The server ended before it answered."""


class _Session:
    """One running server: its tools, and the jobs for it. Its coroutines run on the servers' loop.

    Args:
        name: the server's name.
        entry: its entry in mcp.json.
        loop: the loop.
    """

    def __init__(self, name: str, entry: Mapping[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.entry = entry
        self.ready: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
        self._name = name
        self._loop = loop
        self._jobs: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._running: dict[asyncio.Task[None], _Job] = {}
        self._closed = False
        self._own: asyncio.Task[None] | None = None
        self.task = asyncio.run_coroutine_threadsafe(self._serve(), loop)

    @property
    def ended(self) -> bool:
        """Whether it takes no more jobs."""
        return self._closed or self.task.done()

    @property
    def busy(self) -> bool:
        """Whether it has an unfinished job. The task of a job ends after its answer, on another thread."""
        return any(not job.answer.done() for job in tuple(self._running.values()))

    def do(self, work: Callable[[Any], Awaitable[Any]]) -> concurrent.futures.Future[Any]:
        """Run a coroutine function of the client; cancelling the future cancels it."""
        job = _Job(work)
        self._loop.call_soon_threadsafe(self._put, job)
        return job.answer

    def end(self) -> concurrent.futures.Future[None]:
        """Close the session and its server; the future is done when the server has ended."""
        self._closed = True
        if self.ready.done():
            self._loop.call_soon_threadsafe(self._jobs.put_nowait, None)
        else:
            self._loop.call_soon_threadsafe(self._stop_starting)
        return self.task

    def _stop_starting(self) -> None:
        if self._own is None:  # its task hasn't begun
            self._loop.call_soon(self._stop_starting)
        else:
            self._own.cancel()

    def _put(self, job: _Job) -> None:
        if self._closed:
            job.fail(ServerEndedError(f"the MCP server {self._name} has ended"))
        else:
            self._jobs.put_nowait(job)

    async def _serve(self) -> None:
        """Open, use and close the session, in one task."""
        self._own = asyncio.current_task()
        try:
            with _open_log(self._name) as log:
                _LOG.set(log)
                async with _client(self.entry, log) as client:
                    self.ready.set_result(await _listed(client))
                    while (job := await self._jobs.get()) is not None:
                        task = asyncio.ensure_future(self._answer(client, job))
                        self._running[task] = job
                        task.add_done_callback(self._running.pop)
                        job.answer.add_done_callback(functools.partial(self._given_up, task))
                    self._refuse()
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(error if isinstance(error, Exception) else ServerEndedError("it was stopped"))
            raise
        finally:
            self._refuse()

    def _refuse(self) -> None:
        """Take no more jobs, and fail those that aren't finished: closing a server may take seconds."""
        self._closed = True
        jobs = [*self._running.values()]
        while not self._jobs.empty():
            jobs += [job] if (job := self._jobs.get_nowait()) is not None else []
        for task in list(self._running):
            task.cancel()
        for job in jobs:
            job.fail(ServerEndedError(f"the MCP server {self._name} has ended"))

    def _given_up(self, task: asyncio.Task[None], answer: concurrent.futures.Future[Any]) -> None:
        if answer.cancelled():
            self._loop.call_soon_threadsafe(task.cancel)

    async def _answer(self, client: Any, job: _Job) -> None:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        try:
            result = await job.work(client)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                self._closed = True
                self._jobs.put_nowait(None)
                job.fail(ServerEndedError(f"the MCP server {self._name} has ended. {_log_hint(self._name)}"))
            else:
                job.fail(error)
        except BaseException as error:  # noqa: BLE001 - becomes the call's error
            job.fail(
                error if isinstance(error, Exception) else ServerEndedError(f"the MCP server {self._name} has ended")
            )
        else:
            job.finish(result)


@dataclass(frozen=True, eq=False)
class _Job:
    """Something to do with a client, and the future of its result, which its owner may have given up."""

    work: Callable[[Any], Awaitable[Any]]
    answer: concurrent.futures.Future[Any] = field(default_factory=concurrent.futures.Future)

    def finish(self, value: Any) -> None:
        """Set the result."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.answer.set_result(value)

    def fail(self, error: Exception) -> None:
        """Set the error."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.answer.set_exception(error)


class Servers:
    """The running servers, on one event loop in a thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: dict[str, _Session] = {}
        self._ending: list[concurrent.futures.Future[None]] = []
        self._lock = threading.Lock()

    def tools(self, name: str, entry: Mapping[str, Any]) -> list[Tool]:
        """The tools of a server; starts it, or restarts it if it has ended or its entry has changed."""
        try:
            _imports.load("mcp")
        except ImportError as error:
            raise LlmLabError("MCP servers need the package mcp.", "pip install 'llmlab[mcp]'") from error
        session = self._session(name, entry)
        kept, alone = session.ready.done(), not session.busy
        listed = self._started(name, session)
        if kept:
            try:
                # A server that ended or hangs since its last use shows here, and one may have other tools by now.
                listed = session.do(_listed).result(ANSWER_S)
            except (ServerEndedError, concurrent.futures.TimeoutError):
                if session.ended or alone:
                    self._end(session)
                    listed = self._started(name, self._session(name, entry))
            except Exception as error:  # noqa: BLE001 - the list from its start is as good
                logging.getLogger(__name__).info("The MCP server %s can't list its tools: %s", name, error)
        return [self._tool(name, entry, one) for one in listed]

    def close(self) -> None:
        """End all servers."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            self._end(session)
        concurrent.futures.wait(self._ending, _CLOSE_S)
        self._ending.clear()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    # -- internals -----------------------------------------------------------------------------

    def _session(self, name: str, entry: Mapping[str, Any]) -> _Session:
        """The running session of a server; a new one if there is none."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None or session.ended or session.entry != entry:
                if session is not None:
                    self._end(session)
                if self._loop is None:
                    self._loop = asyncio.new_event_loop()
                    threading.Thread(target=self._loop.run_forever, name="llmlab-mcp", daemon=True).start()
                    _keep_messages()
                session = self._sessions[name] = _Session(name, entry, self._loop)
            return session

    def _started(self, name: str, session: _Session) -> list[Any]:
        """The tools of a session that may still be starting; a start that fails or is interrupted ends it."""
        why = ""
        try:
            return session.ready.result(START_S)
        except concurrent.futures.TimeoutError:
            why = f"did not start within {START_S:g} s"
        except Exception as error:  # noqa: BLE001 - any error of the package or the server
            why = f"can't be started: {_reason(error)}"
        finally:
            if not session.ready.done() or session.ready.exception() is not None:
                self._end(session)
        # Raised here, since IPython prints the complete traceback of an error with an exception group in its context.
        raise LlmLabError(f"The MCP server {name} {why}.", _log_hint(name))

    def _end(self, session: _Session) -> None:
        """End a session without waiting for its server."""
        self._ending = [one for one in self._ending if not one.done()]
        if not session.task.done():
            self._ending.append(session.end())

    def _tool(self, name: str, entry: Mapping[str, Any], listed: Any) -> Tool:
        def session() -> _Session:
            found = self._session(name, entry)
            self._started(name, found)
            return found

        async def call(**arguments: Any) -> Any:
            running = await asyncio.to_thread(session)
            answer = running.do(functools.partial(_called, name=listed.name, arguments=arguments))
            return await asyncio.wrap_future(answer)

        schema = dict(listed.input_schema)
        parameters = {"type": "object", "properties": schema.get("properties", {}), **schema}
        called, about = _UNFIT.sub("_", listed.name)[:64], inspect.cleandoc(listed.description or "")
        return _RemoteTool(called, about, parameters, call, is_async=True, server=name)


_LOG: contextvars.ContextVar[TextIO | None] = contextvars.ContextVar("log of the MCP server", default=None)


class _Messages(logging.Handler):
    """Writes the package's messages about a server to that server's log file, not to the cell."""

    def emit(self, record: logging.LogRecord) -> None:
        log = _LOG.get()
        if log is not None and not log.closed:
            log.write(self.format(record) + "\n")
            log.flush()


def _keep_messages() -> None:
    """Log the package's messages to the servers' files, once."""
    logger = logging.getLogger("mcp")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())


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
    return Client(stdio_client(_guarded(StdioServerParameters(**values)), errlog=log))


def _guarded(server: Any) -> Any:
    """The parameters that start a server under a guardian, which ends it when this process has ended.

    The pipe to its stdin isn't enough: a server whose main thread is blocked doesn't notice that it was closed.
    """
    if sys.platform == "win32":
        return server  # the package puts it in a job object, which ends with this process
    # The guardian would report a missing program only in the server's log.
    if os.path.dirname(server.command):  # noqa: PTH120 - Path drops the ./ of ./program
        found = shutil.which(Path(server.cwd or "", server.command).absolute())
    else:
        found = shutil.which(server.command, path=(server.env or {}).get("PATH"))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), server.command)
    command, *args = guardian.command([server.command, *server.args], stdin=True)
    return server.model_copy(update={"command": command, "args": args})


async def _listed(client: Any) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            return found


async def _called(client: Any, name: str, arguments: dict[str, Any]) -> Any:
    """The result of a tool: its text, else its structured content."""
    result = await client.call_tool(name, arguments)
    text = "\n".join(_shown(block) for block in result.content)
    if result.is_error:
        raise RuntimeError(text or "the MCP server reports an error")
    return text if text or result.structured_content is None else result.structured_content


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
    return config.log_dir() / f"mcp-{_UNFIT.sub('_', name)}.log"


def _open_log(name: str) -> TextIO:
    """A server's log. If it can't be written, the server runs without it."""
    path = _log_file(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", errors="replace")
    except OSError:
        return open(os.devnull, "a", encoding="utf-8")  # noqa: PTH123 - a device


def _log_hint(name: str) -> str:
    path = _log_file(name)
    if config.is_file(path):
        return f"Its messages are in {path}."
    return f"Its messages are lost, because {path} can't be written: set LLMLAB_LOGS to another folder."


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300].removesuffix(": ")


_SERVERS = Servers()
atexit.register(_SERVERS.close)
