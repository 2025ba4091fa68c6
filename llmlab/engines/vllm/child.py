"""An engine core in a child process, in a session of its own, that ends with the kernel.

An interrupt of a notebook's kernel sends SIGINT to the kernel's whole process group. vLLM starts its core with
multiprocessing's spawn, which offers no way to leave the group, but lets one say which executable to start: a
short script that starts Python through `llmlab.machine.guardian`, which also ends it when the kernel is killed.
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
    """Let processes that multiprocessing spawns meanwhile lead sessions of their own, with a log for their output.

    Args:
        log: the file that takes their stdout and stderr.
    """
    start = shlex.join(guardian.command([sys.executable], pipe=False))
    before = multiprocessing.spawn.get_executable()
    with scratch() as folder:
        script = folder / "python"
        # An interrupt that comes before the guardian has left the kernel's session is ignored. multiprocessing's
        # tracker of shared memory must outlive the kernel to tidy up after it, and ends by itself.
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
    """Process ids of the engine cores that this process has started and that still run."""
    return {
        child.pid
        for child in multiprocessing.active_children()
        if child.pid is not None and child.name.startswith("EngineCore")
    }


def watch(client: Any, ended: threading.Event) -> None:
    """Tell who waits for a core's output that the core has died: vLLM's synchronous client would wait for ever.

    Args:
        client: vLLM's SyncMPClient.
        ended: set when the engine is closed.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    def look() -> None:
        while not ended.wait(0.5):
            if client.resources.engine_dead:
                client.outputs_queue.put_nowait(EngineDeadError())
                return

    threading.Thread(target=look, name="llmlab-vllm-watch", daemon=True).start()


def kill(pids: set[int]) -> None:
    """Kill processes and all that they started.

    A core whose load was interrupted heeds SIGTERM only once it has loaded, and may then wait for ever.
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
