"""Importance matrices, computed on a calibration text by llama.cpp's `llama-imatrix`."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from llmlab import config
from llmlab.errors import BadInputError, LoadError
from llmlab.quant import llamacpp_source
from llmlab.types.progress import Progress


def imatrix(model: Path, text: str, *, context: int = 512, progress: Progress | None = None) -> Path:
    """The importance matrix of a GGUF file for a text, computed now if it isn't in the cache.

    Args:
        model: an F16, BF16 or F32 GGUF file.
        text: calibration text, typical of the intended use.
        context: tokens per window.
        progress: called with the phase.

    Raises:
        BadInputError: the text is empty.
        LoadError: the tool can't be built or failed (for example, if the text is shorter than a window).
    """
    if not text.strip():
        raise BadInputError(
            "The calibration text for the importance matrix is empty.", "Pass a text, a file or a variable."
        )
    stat = model.stat()
    key = f"{model.resolve()} {stat.st_size} {stat.st_mtime_ns} {context}\n{text}"
    target = config.cache_dir() / "imatrix" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.gguf"
    if config.is_file(target):
        return target
    tool = llamacpp_source.tool("llama-imatrix", progress)
    with config.writing(target, error=LoadError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".imatrix.") as scratch:
            source, made = Path(scratch) / "text.txt", Path(scratch) / "made.gguf"
            source.write_text(text, encoding="utf-8")
            command = [str(tool), "-m", str(model), "-f", str(source), "-o", str(made), "-c", str(context), "-ngl", "0"]
            if progress is not None:
                progress("importance matrix", None)
            llamacpp_source.run([*command, "--parse-special"], "compute the importance matrix")
            made.replace(target)
    return target
