"""Tries an untrusted GGUF file in a short-lived subprocess first, because some files make llama.cpp abort its process.

llama.cpp loads the vocabulary and builds its graphs with `no_alloc`, which reads no weights: about 0.1 s for any
file size. Files that passed are recorded in the cache by path, size and modification time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab.engines.base import EngineLog, LoadPlan
from llmlab.engines.llamacpp.options import projector_of
from llmlab.errors import Interrupted, LoadError
from llmlab.files import architectures, gguf
from llmlab.files.source import Source

_WORKER = Path(__file__).with_name("trial_worker.py")
# Reading a vocabulary of 260,000 tokens takes 0.5 s; longer on slow disks and busy machines.
_SECONDS = 120
_LOG_TAIL = 12
# The worker's exit status; any other is an abort or a crash.
_REFUSED, _NO_LIBRARY = 1, 77
_VERSION = 1
"""Part of the record's name; increment it when the check covers more."""


def check(plan: LoadPlan, log: EngineLog, cancelled: threading.Event) -> None:
    """Try the plan's files, including the draft model's, unless llmlab made them or `-x check_file=false` is set.

    Args:
        plan: the load.
        log: receives llama.cpp's output on failure.
        cancelled: ends the check.

    Raises:
        LoadError: llama.cpp aborted the subprocess; the message quotes its last line.
        Interrupted: `cancelled` was set.
    """
    if not plan.extra.get("check_file", True):
        return
    draft = plan.draft.source if plan.draft is not None else None
    for source in (plan.source, draft):
        if source is not None and not _made_here(source):
            check_file(source.path, log, cancelled)
    projector = projector_of(plan)
    if projector is not None:
        check_file(plan.source.path, log, cancelled, projector=projector)


def _made_here(source: Source) -> bool:
    return source.base is not None or source.path.is_relative_to(config.cache_dir() / "gguf")


def check_file(path: Path, log: EngineLog, cancelled: threading.Event, *, projector: Path | None = None) -> None:
    """Like `check`, for one file (the first part of a split one), or for a model with its projector."""
    note = _note(path, projector)
    if config.is_file(note):
        return
    code, output = _run(path, cancelled, projector)
    path = projector or path
    if code == 0:
        with config.keeping(note):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
    elif code not in (_REFUSED, _NO_LIBRARY):
        log.write(output)
        tail = "\n".join(output.strip().splitlines()[-_LOG_TAIL:])
        raise LoadError(
            f"llamacpp can't load {path.name}: {_reason(code, output)}.",
            "The file is damaged or triggers a llama.cpp bug: download it again, or use another file. "
            "-x check_file=false skips this check; the load may then crash the kernel.",
            log_tail=tail,
        )
    # A file that llama.cpp rejects without aborting is rejected again by the load itself, with the full log.


def _reason(code: int, output: str) -> str:
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"status {code}"
    if name == "SIGALRM":
        return f"llama.cpp didn't finish reading its header in {_SECONDS} s"
    # `llama-vocab.cpp:2544: GGML_ASSERT(...) failed`, without its build directory; or the C++ exception's message.
    found = re.findall(r"([^\s/\\]+:\d+: .+)$|^\s*(what\(\): .+)$", output, re.MULTILINE)
    return f"it makes llama.cpp abort ({name})" + (f": {''.join(found[-1]).strip()}" if found else "")


def _note(path: Path, projector: Path | None) -> Path:
    import llama_cpp

    files = [*gguf.parts(path), *([projector] if projector is not None else [])]
    stats = [(str(part.resolve()), part.stat()) for part in files]
    state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    key = hashlib.sha256(repr((_VERSION, llama_cpp.__version__, state)).encode()).hexdigest()[:24]
    return config.cache_dir() / "checked" / key


@functools.cache
def _params() -> dict[str, str]:
    """Params for a load without weights and for a small context, as bytes: all pointers in them are null."""
    import llama_cpp

    model = llama_cpp.llama_model_default_params()
    model.no_alloc, model.load_mode, model.n_gpu_layers = True, llama_cpp.LLAMA_LOAD_MODE_NONE, 0
    context = llama_cpp.llama_context_default_params()
    context.n_ctx, context.n_batch, context.n_ubatch = 256, 64, 64
    context.n_threads = context.n_threads_batch = 1
    return {"model": bytes(model).hex(), "context": bytes(context).hex()}


def _projector(library: Path, path: Path) -> dict[str, Any]:
    """What the worker needs to load a projector: it reads its weights, but encodes nothing."""
    from llama_cpp.mtmd_cpp import mtmd_context_params

    field: Any = mtmd_context_params.warmup
    size = ctypes.sizeof(mtmd_context_params)
    return {
        "mtmd": str(library.with_name(library.name.replace("llama", "mtmd"))),
        "projector": str(path),
        "projector_params": [size, field.offset],
    }


def _run(path: Path, cancelled: threading.Event, projector: Path | None = None) -> tuple[int, str]:
    """The worker's exit status, negative for a signal, and its output."""
    library = architectures.library()
    if library is None:
        return _NO_LIBRARY, ""
    job: dict[str, Any] = {
        "library": str(library),
        "path": str(path),
        "parent": os.getpid(),
        "seconds": _SECONDS,
        **_params(),
        **(_projector(library, projector) if projector is not None else {}),
    }
    # Building graphs needs no GPU, and initializing one takes seconds. On abort llama.cpp would start gdb.
    hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"), "")
    environment = {**os.environ, **hidden, "GGML_NO_BACKTRACE": "1"}
    with tempfile.TemporaryFile() as out:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own worker, and no shell
                [sys.executable, "-I", "-S", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return _NO_LIBRARY, str(error)
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(job).encode())
            while process.poll() is None:
                if cancelled.is_set():
                    raise Interrupted
                time.sleep(0.005)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        return process.returncode, out.read().decode("utf-8", "replace")
