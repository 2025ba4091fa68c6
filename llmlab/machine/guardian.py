"""Runs a program that ends with the process that started it, however that process ends (including SIGKILL).

This file runs as a script between the two. It leads its own session, so that a notebook's Ctrl-C doesn't reach the
program, and kills all of that session when its parent has ended: it reads a pipe until the parent closes it, and also
polls its parent's id, because a process forked by the parent keeps the pipe open. Linux's PR_SET_PDEATHSIG alone isn't
enough: it fires when the *thread* that started the program ends, and doesn't reach the program's own children.
"""

import os
import signal
import subprocess
import sys
import threading
import time

POLL_S = 0.25
_PR_SET_PDEATHSIG = 1


def command(program: list[str], *, pipe: bool = False, stdin: bool = False) -> list[str]:
    """The command line that starts a program under a guardian.

    Args:
        program: the program and its arguments.
        pipe: stdin is a pipe that this process keeps open; when it closes, the program is ended.
        stdin: the program reads stdin itself; else its stdin is empty.
    """
    # -I and -S: import nothing from this folder or the program's PYTHONPATH, and start within about 20 ms.
    mode = "pipe" if pipe else "stdin" if stdin else "-"
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), mode, *program]


def end(pid: int) -> None:
    """Kill a guardian, its program and all processes that the program started."""
    if hasattr(os, "killpg") and os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def main(parent: int, mode: str, program: list[str]) -> int:
    """Run the program to its end; returns its exit status, or ends with the signal that ended the program."""
    if hasattr(os, "setsid") and os.getpgid(0) != os.getpid():
        os.setsid()
    # The parent may have started this process with interrupts ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    me = os.getpid()
    if "JPY_PARENT_PID" in os.environ:
        os.environ["JPY_PARENT_PID"] = str(me)  # ipykernel ends when its parent is no longer this process
    child = subprocess.Popen(  # noqa: S603 - see `command`
        program,
        stdin=None if mode == "stdin" else subprocess.DEVNULL,
        close_fds=False,  # multiprocessing passes its pipes by number
        preexec_fn=(lambda: _die_with(me)) if sys.platform == "linux" else None,  # noqa: PLW1509 - there is only one thread yet
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    if mode == "stdin":  # keep no second end of the program's pipes open
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)

    def kill() -> None:
        if hasattr(os, "killpg") and os.getpgid(0) == me:
            os.killpg(me, signal.SIGKILL)
        child.kill()

    def read() -> None:
        while os.read(0, 4096):
            pass
        kill()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        kill()

    for watch in (read, look) if mode == "pipe" else (look,):
        threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    if status < 0:
        _die_of(-status)
    return status


def _die_with(guardian: int) -> None:
    """In the program's process: end when only the guardian is killed. The guardian's main thread runs until its end."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian:  # the guardian was killed before the line above
        os._exit(1)


def _die_of(number: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keep the program's own core dump
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
