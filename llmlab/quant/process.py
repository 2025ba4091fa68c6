"""Programs that llmlab runs beside the kernel, followed line by line."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Sequence

from llmlab.machine import guardian


def follow(command: Sequence[str], each: Callable[[str], None]) -> int:
    """Run a program to its end; whatever ends the call early (an interrupt, say) kills the program and its children.

    So does the end of this process, SIGKILL included.

    Args:
        command: the program and its arguments: paths and values of our own, never a shell's.
        each: told every line that it prints, on stdout or stderr, without the newline.

    Returns:
        Its exit status, negative for a signal.
    """
    # A session of its own keeps the kernel's interrupt from hitting the program before it is ended here.
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
