"""Runs an engine core in a child process with its own session, which ends when the kernel does.

Interrupting a notebook's kernel sends SIGINT to the kernel's entire process group. vLLM starts its core with
multiprocessing's spawn, which can't leave the group, but allows setting the executable: a short script that
starts Python through `llmlab.machine.guardian`, which also ends it when the kernel is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.spawn
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from llmlab.config import scratch
from llmlab.machine import guardian


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


def watch(client: Any, ended: threading.Event) -> None:
    """Pass a core's death on to the thread waiting for its output: vLLM's synchronous client would wait forever.

    Args:
        client: vLLM's SyncMPClient.
        ended: set when the engine is closed.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    def poll() -> None:
        while not ended.wait(0.5):
            if client.resources.engine_dead:
                client.outputs_queue.put_nowait(EngineDeadError())
                return

    threading.Thread(target=poll, name="llmlab-vllm-watch", daemon=True).start()


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
