"""Run a program in a separate process and read its output line by line."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Sequence

from llmlab.machine import guardian


def follow(command: Sequence[str], each: Callable[[str], None]) -> int:
    """Run a program to completion.

    If the call ends early (an interrupt) or this process ends (even by SIGKILL), the program and its children are
    killed.

    Args:
        command: the program and its arguments; no shell is involved.
        each: called with every line of stdout and stderr, without the newline.

    Returns:
        The exit status; negative for a signal.
    """
    # In its own session, the program doesn't receive the kernel's interrupt; it is ended below.
    process = subprocess.Popen(  # noqa: S603 - see `command`
        guardian.command(list(command), pipe=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            each(line.rstrip())
        return process.wait()
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                guardian.end(process.pid)
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
