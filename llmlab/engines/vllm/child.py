"""Runs an engine core in a child process with its own session, which ends when the kernel does.

Interrupting a notebook's kernel sends SIGINT to the kernel's entire process group. vLLM starts its core with
multiprocessing's spawn, which can't leave the group, but allows setting the executable: a short script that
starts Python through `llmlab.machine.guardian`, which also ends it when the kernel is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.spawn
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import InvalidStateError
from pathlib import Path
from typing import Any

import psutil

from llmlab.config import scratch
from llmlab.machine import guardian

POLL_S = 0.25
# Python's report of an exception that ended a thread. The core's main thread goes on without its threads for input and
# output: requests would wait forever.
_DEAD_THREAD = re.compile(r"Exception in thread .*\(process_\w*sockets\)")
# What vLLM (`(EngineCore pid=7)`) and the log's formatter (`ERROR [vllm.v1.engine.core]`) write before a line.
_PREFIX = re.compile(r"^(\(\w+ pid=\d+\)\s*|\d\d:\d\d:\d\d\s|[A-Z]+ \[[\w.]+\]\s*|[A-Z]+ \d\d-\d\d \S+ \[\S+\]\s*)+")
_ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b(: .+)?$")
_CONSEQUENCE = re.compile(r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed")


@contextlib.contextmanager
def own_session(log: Path) -> Iterator[None]:
    """Start the processes that multiprocessing spawns in this block in their own sessions, with output to a log.

    Args:
        log: the file that receives their stdout and stderr.
    """
    start = shlex.join(guardian.command([sys.executable], pipe=False))
    before = multiprocessing.spawn.get_executable()
    with scratch() as folder:
        script = folder / "python"
        # SIGINT is ignored until the guardian has left the kernel's session. multiprocessing's resource tracker must
        # outlive the kernel to clean up its shared memory, and ends by itself.
        script.write_text(
            f'#!/bin/sh\ntrap "" INT\nexec >>{shlex.quote(str(log.resolve()))} 2>&1\n'
            f'case "$*" in *resource_tracker*) exec {shlex.quote(sys.executable)} "$@" ;; esac\nexec {start} "$@"\n'
        )
        script.chmod(0o700)
        multiprocessing.spawn.set_executable(str(script))
        try:
            yield
        finally:
            multiprocessing.spawn.set_executable(before)


def cores() -> set[int]:
    """Process ids of the running engine cores that this process has started."""
    return {
        child.pid
        for child in multiprocessing.active_children()
        if child.pid is not None and child.name.startswith("EngineCore")
    }


class Watch:
    """Follows a core in a child process: its lines in the log, its threads and its end.

    vLLM's synchronous client would wait forever for a core that has died, or that no longer reads its input.

    Args:
        path: the log file that the child appends to.
        line: called with each new line, on the watching thread.
    """

    def __init__(self, path: Path, line: Callable[[str], None]) -> None:
        self._path, self._line = path, line
        self._read = path.stat().st_size if path.is_file() else 0
        self._partial = b""
        self._ended = threading.Event()
        self._client: Any = None
        self.pids: set[int] = set()
        threading.Thread(target=self._run, name="llmlab-vllm-watch", daemon=True).start()

    def attach(self, client: Any, pids: set[int]) -> None:
        """Watch a loaded engine.

        Args:
            client: vLLM's SyncMPClient.
            pids: its core's processes.
        """
        self.pids, self._client = pids, client

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            for line in self._lines():
                if _DEAD_THREAD.search(line):
                    kill(self.pids)  # vLLM's monitor notices that
                self._line(line)
            if self._client is not None and self._client.resources.engine_dead:
                self._fail()
                return

    def _fail(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        self._client.outputs_queue.put_nowait(EngineDeadError())
        for future in list(self._client.utility_results.values()):
            with contextlib.suppress(InvalidStateError):
                future.set_exception(EngineDeadError())

    def _lines(self) -> list[str]:
        """The complete lines appended since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return []
        self._read += len(new)
        # A progress bar (of the captured CUDA graphs) writes its states over each other, with \r.
        *lines, self._partial = (self._partial + new).replace(b"\r", b"\n").split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def reason(text: str) -> str:
    """The error that ended a core, from its log; "" if there is none.

    Args:
        text: the end of the log.
    """
    lines = [_PREFIX.sub("", line).strip() for line in text.splitlines()]
    found = [place for place, line in enumerate(lines) if _ERROR.match(line) and not _CONSEQUENCE.search(line)]
    if not found:
        return ""
    at = found[-1]
    if "validation error" not in lines[at]:
        return lines[at]
    # pydantic: the messages follow, each under the name of its field.
    rest = [line for line in lines[at + 1 : at + 6] if line and not line.startswith("For further information")]
    return " ".join([f"{lines[at]}:", *rest])


def family(pids: set[int]) -> set[int]:
    """Processes and all their children."""
    found = set(pids)
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found |= {process.pid for process in psutil.Process(pid).children(recursive=True)}
    return found


def resident(pids: set[int]) -> int:
    """Bytes of RAM of processes and all their children."""
    total = 0
    for pid in family(pids):
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total


def kill(pids: set[int]) -> None:
    """Kill processes and all their children.

    A core whose load was interrupted handles SIGTERM only after it has loaded, and may then wait forever.
    """
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            core = psutil.Process(pid)
            family = [*core.children(recursive=True), core]
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(family, timeout=5)
    multiprocessing.active_children()  # reaps them


def log_config(path: Path, folder: Path) -> Path:
    """Write a `logging` configuration that sends a child's vLLM records to the engine's log file.

    Args:
        path: the log file.
        folder: where to write the JSON file.
    """
    import json

    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s [%(name)s] %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(path), "formatter": "plain"}},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }
    file = folder / "logging.json"
    file.write_text(json.dumps(config))
    return file
