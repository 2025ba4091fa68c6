"""Programs that llmlab runs beside the kernel, followed line by line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence


def follow(command: Sequence[str], each: Callable[[str], None]) -> int:
    """Run a program to its end; whatever ends the call early (an interrupt, say) kills the program.

    Args:
        command: the program and its arguments: paths and values of our own, never a shell's.
        each: told every line that it prints, on stdout or stderr, without the newline.

    Returns:
        Its exit status, negative for a signal.
    """
    # A session of its own keeps the kernel's interrupt from hitting the program before it is ended here.
    process = subprocess.Popen(  # noqa: S603 - see `command`
        list(command),
        stdin=subprocess.DEVNULL,
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
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
