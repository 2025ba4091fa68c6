"""What went wrong in a notebook, cut to what matters: the cell, the traceback, the end of the engine's log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmlab.render.safe import plain

LOG_LINES = 20
_SOURCE_LINES = 40
_MESSAGE_LINES = 30
_LINE = 300  # characters
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a notebook failed.

    Attributes:
        reason: one line.
        cell: which cell of the notebook, counted from 1, text and code alike; None when it was no cell's fault.
        prompt: the number in the cell's `In [ ]`.
        source: the cell's code.
        traceback: the traceback without colours, long ones without their middle.
        log: the last lines of the engine's log (of several, the one written last; of a kernel that died, what it
            wrote itself); "" when there is none.
        log_path: that log.
    """

    reason: str
    cell: int | None = None
    prompt: int | None = None
    source: str = ""
    traceback: str = ""
    log: str = ""
    log_path: Path | None = None

    @property
    def where(self) -> str:
        """The cell in words: "cell 7, In [4]"; "" when it was no cell's fault."""
        if self.cell is None:
            return ""
        return f"cell {self.cell}" + (f", In [{self.prompt}]" if self.prompt else "")

    @property
    def line(self) -> str:
        """Where and why, on one line."""
        return f"{self.where}: {self.reason}" if self.where else self.reason

    def __str__(self) -> str:
        parts = [self.line]
        if self.source:
            parts += ["", *_indented(cut(self.source.splitlines(), _SOURCE_LINES))]
        if self.traceback:
            parts += ["", self.traceback]
        if self.log:
            parts += ["", f"The log's last lines ({self.log_path}):", *_indented(self.log.splitlines())]
        return plain("\n".join(parts))


def traceback_text(frames: Iterable[str]) -> str:
    """A kernel's traceback without colours: the cell's frame and the last two, what lies between only counted.

    Args:
        frames: as the kernel sends it, one text a frame.
    """
    texts = [_ANSI.sub("", frame).strip("\n") for frame in frames]
    texts = [text for text in texts if text and not re.fullmatch(r"-+", text)]
    if len(texts) > 6:  # a heading, the cell's frame ... two frames, the error
        left_out = len(texts) - 5
        texts = [*texts[:2], f"... {left_out} more ...", *texts[-3:]]
    if texts:
        texts[-1] = "\n".join(cut(texts[-1].splitlines(), _MESSAGE_LINES))
    return "\n".join(texts)


def cut(lines: Sequence[str], most: int) -> list[str]:
    """Lines without their middle, where they are more than `most`."""
    if len(lines) <= most:
        return list(lines)
    half = most // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]]


def log_tail(logs: Iterable[Path], lines: int = LOG_LINES) -> tuple[Path | None, str]:
    """Of logs, the one that was written last, and its last lines; (None, "") where nothing was written."""
    written = [(path.stat().st_mtime, path) for path in logs if path.stat().st_size]
    if not written:
        return None, ""
    path = max(written)[1]
    found = _ANSI.sub("", path.read_text(encoding="utf-8", errors="replace")).splitlines()
    # What crashed stands at the head of Python's report of a crash, however long the stacks below it are.
    crash = next((i for i, line in enumerate(found) if line.startswith("Fatal Python error")), None)
    shown = found[-lines:] if crash is None else found[crash : crash + lines]
    # vLLM writes its whole configuration as one line.
    return path, "\n".join(f"{line[:_LINE]}..." if len(line) > _LINE else line for line in shown)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}".rstrip() for line in lines]
