"""Shows how far a compilation is: `pip install -v ... 2>&1 | python scripts/build_progress.py LOG`.

Reads ninja's `[12/345]` in pip's output, keeps all of it in LOG, and prints a line that grows (in a log file, one line
per 10 %). The exit status of pip counts (`set -o pipefail`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

_STEP = re.compile(r"\[(\d+)/(\d+)\]")
_PACKAGE = re.compile(r"Building wheel for ([\w.-]+)|Collecting ([\w.-]+)|(Installing collected packages)")
# Smaller builds are over in seconds.
_LEAST_STEPS = 20


def follow(lines: Iterable[str], log: TextIO, out: TextIO, *, live: bool) -> None:
    """Copy the lines to the log and print the progress.

    Args:
        lines: pip's output.
        log: where all of it is kept.
        out: where the progress is printed.
        live: one line that is overwritten; else a line per 10 %.
    """
    package, shown = "", -1
    for line in lines:
        log.write(line)
        found = _PACKAGE.search(line)
        if found:
            package, shown = (found[1] or found[2] or "").rstrip("."), -1
        step = _STEP.search(line)
        if step is None or int(step[2]) < _LEAST_STEPS:
            continue
        percent = 100 * int(step[1]) // int(step[2])
        if percent // (1 if live else 10) == shown:
            continue
        shown = percent // (1 if live else 10)
        text = f"compiling {package or 'llama.cpp'}: {percent} % ({step[1]} of {step[2]})"
        out.write(f"\r{text}\x1b[K" if live else f"{text}\n")
        out.flush()
    if live:
        out.write("\n")


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", encoding="utf-8") as kept:
        follow(sys.stdin, kept, sys.stdout, live=sys.stdout.isatty())
