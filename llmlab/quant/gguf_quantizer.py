"""Quantize a GGUF file with llama.cpp's own quantizer, in a short process of its own.

A process, because the quantizer can't be stopped from outside, holds the interpreter, and logs through a hook
that belongs to the whole process: so an interrupt ends it at once, and its output never reaches the notebook.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import deque
from pathlib import Path

from llmlab.errors import EngineMissingError, LoadError, UnsupportedError
from llmlab.files.tags import Tag
from llmlab.quant.process import follow
from llmlab.types.progress import Progress

# llama.cpp's llama-quant.cpp refuses these, or types that it mixes into them, without an importance matrix.
NEED_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"})
# It applies MXFP4 to the expert tensors alone, and stores everything else as Q8_0.
_EXPERTS_ONLY = frozenset({"MXFP4"})

_WORKER = Path(__file__).with_name("gguf_quantizer_worker.py")
_STEP = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")


def can_make(tag: Tag) -> bool:
    """Whether a tag can be made here, from a dense model and without an importance matrix."""
    return tag.format == "gguf" and tag.name not in NEED_IMATRIX | _EXPERTS_ONLY


def check(tag: Tag) -> None:
    """Refuse a tag that can't be made here.

    Raises:
        UnsupportedError: it needs an importance matrix, or is for mixtures of experts.
    """
    if can_make(tag):
        return
    why = "can only be made with an importance matrix" if tag.name in NEED_IMATRIX else "is for mixtures of experts"
    raise UnsupportedError(
        f"{tag.name} {why}.", "Take another tag (Q3_K_S, Q4_K_M), or load a GGUF that someone made with it."
    )


def quantize_file(
    source: Path,
    target: Path,
    tag: Tag,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    imatrix: Path | None = None,
) -> None:
    """Write a quantized copy of a GGUF file.

    Args:
        source: an F16, BF16 or F32 file.
        target: the file to write (under its temporary name).
        tag: what to make.
        threads: threads to use; None takes as many as there are cores for this process.
        progress: told "quantize" and how many of the tensors are done.
        imatrix: an importance matrix (GGUF, as `llama-imatrix` writes it), or None.

    Raises:
        EngineMissingError: llama-cpp-python isn't installed.
        LoadError: the quantizer failed; its last lines are in `log_tail`.
    """
    count = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    # -P keeps this folder off the path (its gguf.py would hide the package).
    command = [sys.executable, "-P", str(_WORKER), str(source), str(target), str(tag.ftype), str(count)]
    command += [str(imatrix)] if imatrix is not None else []
    tail: deque[str] = deque(maxlen=20)

    def each(line: str) -> None:
        tail.append(line)
        step = _STEP.match(line)
        if step and progress is not None:
            progress("quantize", int(step[1]) / int(step[2]))

    code = follow(command, each)
    if code == 3:
        raise EngineMissingError(
            "Quantizing needs llama-cpp-python, which isn't installed.", "Install it: pip install 'llmlab[llamacpp]'."
        )
    if code != 0 and any("requires an imatrix" in line for line in tail):
        raise UnsupportedError(
            f"{tag.name} of this model can only be made with an importance matrix.", "Take a larger tag."
        )
    if code != 0:
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        raise LoadError(
            f"llama.cpp's quantizer could not make {tag.name} ({why}).",
            "Check the disk space, and try another tag.",
            log_tail="\n".join(tail),
        )
