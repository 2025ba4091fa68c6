"""Quantize a GGUF file with llama.cpp's quantizer, in a separate process.

The quantizer can't be cancelled, holds the GIL, and logs through a process-wide hook. In its own process an interrupt
ends it at once, and its output stays out of the notebook.
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

# llama-quant.cpp refuses these, or a type that it mixes into them, without an importance matrix.
NEED_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"})
# MXFP4 applies to expert tensors only; everything else is stored as Q8_0.
_EXPERTS_ONLY = frozenset({"MXFP4"})

_WORKER = Path(__file__).with_name("gguf_quantizer_worker.py")
_STEP = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")


def can_make(tag: Tag) -> bool:
    """Whether a tag can be made from a dense model without an importance matrix."""
    return tag.format == "gguf" and tag.name not in NEED_IMATRIX | _EXPERTS_ONLY


def check(tag: Tag) -> None:
    """Refuse a tag that can't be made here.

    Raises:
        UnsupportedError: it needs an importance matrix, or is for mixture-of-experts models only.
    """
    if can_make(tag):
        return
    why = "needs an importance matrix" if tag.name in NEED_IMATRIX else "is for mixture-of-experts models only"
    raise UnsupportedError(
        f"{tag.name} {why}.", "Use another tag (Q3_K_S, Q4_K_M), or load a GGUF that already has it."
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
        tag: the target quant.
        threads: number of threads; None uses all cores available to this process.
        progress: called with "quantize" and the fraction of tensors done.
        imatrix: an importance matrix (GGUF, as `llama-imatrix` writes it), or None.

    Raises:
        EngineMissingError: llama-cpp-python isn't installed.
        LoadError: the quantizer failed; its last lines are in `log_tail`.
    """
    count = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    # -P keeps this folder off sys.path, where a module could shadow a package.
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
            "Quantization needs llama-cpp-python, which isn't installed.", "pip install 'llmlab[llamacpp]'"
        )
    if code != 0 and any("requires an imatrix" in line for line in tail):
        raise UnsupportedError(f"{tag.name} of this model needs an importance matrix.", "Use a larger tag.")
    if code != 0:
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise LoadError(
            f"llama.cpp's quantizer could not make {tag.name} ({why}).",
            "Check the disk space, or try another tag.",
            log_tail="\n".join(tail),
        )
