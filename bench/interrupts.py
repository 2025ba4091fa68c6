"""Interrupts at random times after a kernel's first `%%llm` cell: afterwards every thread must still be able to import.

Each trial is a kernel of its own: `%load_ext llmlab`, `%llm load nano`, cells that ask, SIGINT at a random time within
1.5 s after the first of them was sent, then an import in a new thread and a further cell, each with a timeout.

    python bench/interrupts.py --engine llamacpp --times 300

To save the seconds that a kernel takes to start, kernels are forked from a process that has imported ipykernel and,
for vllm, what `%llm load` imports of vLLM; it runs one thread and no shell. All that llmlab imports apart from that,
and all that the first cell does, happens after the fork, as in any kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WITHIN_S = 1.5
# What counts as hung. The slowest of these steps takes about a second on two busy cores.
PATIENCE_S = 60.0
SHORT = "%%llm -t 0 --max-tokens 8\nHello!"
LONG = "%%llm -n 64 -t 1 --max-tokens 600\nTell me a story."
IMPORT = """
import sys, threading
new = next(name for name in ("wave", "mailbox", "telnetlib", "nntplib") if name not in sys.modules)
done = []
thread = threading.Thread(target=lambda: (__import__(new), done.append(1)), daemon=True)
thread.start()
thread.join(20)
print("imported" if done else "HUNG")
"""


def nursery(engine: str) -> None:
    """Fork a kernel for each connection file named on stdin; its process id goes to stdout."""
    import ipykernel.kernelapp
    import ipykernel.zmqshell

    if engine == "vllm":
        from llmlab.engines.vllm import load, logs

        with logs.environment(load.environment(in_process=load.runs_in_process())):
            load.import_vllm()
    tasks = len(list(Path("/proc/self/task").iterdir()))
    print(f"ready {tasks}", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)  # the list of process ids goes there
            app = ipykernel.kernelapp.IPKernelApp.instance(connection_file=line.strip())
            app.initialize([])
            app.start()
            os._exit(0)
        print(child, flush=True)


class Kernels:
    """A process that kernels are forked from.

    Args:
        engine: which one they will load.
    """

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.folder = tempfile.TemporaryDirectory(prefix="llmlab-interrupts-")
        command = [sys.executable, __file__, "--nursery", "--engine", engine]
        env = {**os.environ, "LLMLAB_DATA": f"{self.folder.name}/data", "OMP_NUM_THREADS": "1"}
        said = subprocess.DEVNULL if not os.environ.get("LLMLAB_INTERRUPTS_STDERR") else None
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=env
        )
        self.threads = int(self._line().split()[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def start(self) -> tuple[int, Any]:
        """A kernel's process id and a client that is connected to it.

        A fork of a process with threads can die before it has started anything; that says nothing about interrupts.
        """
        for _ in range(3):
            with contextlib.suppress(RuntimeError):
                return self._start()
        return self._start()

    def _start(self) -> tuple[int, Any]:
        from jupyter_client.blocking import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        file, _ = write_connection_file(str(Path(self.folder.name) / f"{time.time_ns()}.json"))
        assert self.process.stdin is not None
        self.process.stdin.write(file + "\n")
        self.process.stdin.flush()
        pid = int(self._line())
        client = BlockingKernelClient(connection_file=file)
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_S)
        return pid, client

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def finish(client: Any, sent: list[str]) -> dict[str, str]:
    """Wait until cells have ended; the status of each, and what they printed under "out".

    Raises:
        queue.Empty: one hasn't.
    """
    found: dict[str, str] = {"out": ""}
    end = time.monotonic() + PATIENCE_S
    open_ = set(sent)
    while open_:
        message = client.get_iopub_msg(timeout=max(end - time.monotonic(), 0.01))
        parent, content = message["parent_header"].get("msg_id"), message["content"]
        if parent not in sent:
            continue
        if message["msg_type"] == "stream":
            found["out"] += content["text"]
        if message["msg_type"] == "error":
            found[parent] = f"{content['ename']}: {content['evalue']}"
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            open_.discard(parent)
    return found


def trial(kernels: Kernels, pick: random.Random) -> str:
    """One kernel, one interrupt. "" when all is well, else what isn't."""
    pid, client = kernels.start()
    try:
        load = client.execute(f"%load_ext llmlab\n%llm load nano --engine {kernels.engine}")
        found = finish(client, [load])
        if load in found:
            return f"load: {found[load]}"
        # Half of them: a short cell, whose answer the run log then writes while the next cell is interrupted.
        cells = [SHORT, LONG] if pick.random() < 0.5 else [LONG]
        sent = [client.execute(cell) for cell in cells]
        time.sleep(pick.uniform(0, WITHIN_S))
        os.kill(pid, signal.SIGINT)
        try:
            finish(client, sent)
        except queue.Empty:
            return "the interrupted cell hangs"
        for what, cell in (("import", IMPORT), ("next cell", SHORT)):
            try:
                found = finish(client, [client.execute(cell)])
            except queue.Empty:
                return f"{what}: hangs"
            if len(found) > 1 or "HUNG" in found["out"]:
                return f"{what}: {found}"
        return ""
    except (queue.Empty, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        client.stop_channels()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def interrupts(engine: str, times: int, *, seed: int = 0, seconds: float | None = None, say: Any = print) -> list[str]:
    """Run trials.

    Args:
        engine: llamacpp or vllm.
        times: how many.
        seed: seeds the times of the interrupts.
        seconds: end earlier once so many have passed.
        say: told about each tenth.

    Returns:
        What each trial gave; "" is well.
    """
    pick, kernels, found, started = random.Random(seed), Kernels(engine), [], time.monotonic()
    try:
        while len(found) < times and (seconds is None or time.monotonic() - started < seconds):
            found.append(trial(kernels, pick))
            if found[-1] or len(found) % 10 == 0:
                say(f"{len(found)}: {sum(map(bool, found))} failed {found[-1]}")
    finally:
        kernels.close()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="llamacpp", choices=("llamacpp", "vllm"))
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="end after so many, with what was done until then")
    parser.add_argument("--nursery", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.nursery:
        nursery(given.engine)
    else:
        outcome = interrupts(given.engine, given.times, seed=given.seed, seconds=given.seconds)
        print(json.dumps({"engine": given.engine, "trials": len(outcome), "failed": [one for one in outcome if one]}))
        sys.exit(any(outcome))
