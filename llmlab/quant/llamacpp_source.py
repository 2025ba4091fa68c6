"""llama.cpp's tools, from the source distribution of the installed llama-cpp-python.

The installed package doesn't include them, so the source distribution (77 MB) is fetched once with pip and cached. The
converter is Python; `llama-imatrix` is compiled (about 10 minutes on two cores).
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from llmlab import config
from llmlab.errors import EngineMissingError, LoadError
from llmlab.quant.process import follow
from llmlab.types.progress import Progress

_NETWORK = "Check the network and the disk; the last lines are below."
_STEP = re.compile(r"^\[(\d+)/(\d+)\]")


def folder(progress: Progress | None = None) -> Path:
    """llama.cpp's sources of the installed llama-cpp-python's release, fetched if needed.

    Raises:
        EngineMissingError: llama-cpp-python isn't installed.
        LoadError: pip could not fetch them, or the cache can't be written.
    """
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        raise EngineMissingError(
            "llama.cpp's tools come with llama-cpp-python, which isn't installed.", "pip install 'llmlab[llamacpp]'"
        ) from None
    home = config.cache_dir() / f"llama.cpp-{version}"
    sources = home / "llama.cpp"
    if config.is_file(sources / "convert_hf_to_gguf.py"):
        return sources
    _say(progress, f"fetching llama.cpp's sources (llama-cpp-python {version}, 77 MB)", None)
    with config.writing(home, error=LoadError):
        home.mkdir(parents=True, exist_ok=True)
        _fetch(version, home, sources)
    return sources


def _fetch(version: str, home: Path, sources: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home, prefix=".fetch.") as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        run([*pip, "--dest", scratch, f"llama-cpp-python=={version}"], "fetch llama.cpp's sources", hint=_NETWORK)
        archive = next(Path(scratch).glob("*.tar.gz"))
        unpacked = Path(scratch) / "unpacked"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        found = next(unpacked.glob("*/vendor/llama.cpp"))
        if not sources.exists():
            found.rename(sources)


def tool(name: str, progress: Progress | None = None) -> Path:
    """A compiled tool (`llama-imatrix`, `llama-perplexity`), built if needed.

    Raises:
        LoadError: no compiler, no cmake, or the build failed.
    """
    sources = folder(progress)
    build = sources.parent / "build"
    made = build / "bin" / name
    if config.is_file(made):
        return made
    missing = [program for program in ("cmake", "c++") if shutil.which(program) is None]
    if missing:
        raise LoadError(
            f"{name} must be compiled, but {' and '.join(missing)} can't be found.",
            "Install the tools (Debian, Ubuntu: sudo apt-get install cmake g++), or leave the importance matrix out.",
        )
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    off = [f"-D{option}=OFF" for option in ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER",
           "LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_UI", "BUILD_SHARED_LIBS")]  # fmt: skip
    _say(progress, f"compiling {name} (once; about 10 minutes on two cores)", None)
    run(["cmake", "-S", str(sources), "-B", str(build), *ninja, "-DCMAKE_BUILD_TYPE=Release", *off], f"prepare {name}")
    run(["cmake", "--build", str(build), "--target", name, "-j"], f"compile {name}", progress, _STEP)
    return made


def run(
    command: Sequence[str],
    what: str,
    progress: Progress | None = None,
    step: re.Pattern[str] | None = None,
    *,
    hint: str = "The program's last lines are below.",
) -> None:
    """Run a program to completion; an interrupt ends it too.

    Args:
        command: the program and its arguments.
        what: what it does, for the error ("compile llama-imatrix").
        progress: called with `what` and the completed fraction.
        step: matches a progress line of the output; its groups are the done and total counts.
        hint: the suggested fix of a failure.

    Raises:
        LoadError: it failed; its last lines are in `log_tail`.
    """
    tail: deque[str] = deque(maxlen=20)

    def each(line: str) -> None:
        tail.append(line)
        found = step.search(line) if step is not None else None
        if found:
            _say(progress, what, int(found[1]) / max(int(found[2]), 1))

    code = follow(command, each)
    if code != 0:
        lines = [line for line in tail if line.strip()]
        raise LoadError(
            f"Could not {what} (exit status {code}): {lines[-1] if lines else 'no output'}",
            hint,
            log_tail="\n".join(tail),
        )


def _say(progress: Progress | None, phase: str, fraction: float | None) -> None:
    if progress is not None:
        progress(phase, fraction)
