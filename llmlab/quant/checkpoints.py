"""awq, gptq, fp8 and int8 checkpoints through llmcompressor, in an environment of its own.

Its pins clash with vLLM's (another compressed-tensors), so it gets a virtual environment under the cache, made at the
first use, and runs there as a worker process.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from llmlab import config
from llmlab.errors import BadInputError, LoadError, UnsupportedError
from llmlab.files.headers import Header
from llmlab.quant import int8, vllm_forms
from llmlab.quant.gguf_cache import with_room
from llmlab.quant.llamacpp_source import run
from llmlab.quant.process import follow
from llmlab.types.progress import Progress

VERSION = "0.14.0.1"
# torch first and alone, so that nothing pulls another; then what was tried together (Python 3.11).
TORCH = "torch==2.13.0"
PINS = (
    f"llmcompressor=={VERSION}", "transformers==5.17.0", "compressed-tensors==0.19.0", "datasets==5.2.0",
    "accelerate==1.15.0", "auto-round==0.15.1",
)  # fmt: skip
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SCHEMES = {"awq": "W4A16_ASYM", "gptq": "W4A16", "fp8": "FP8_DYNAMIC", "int8": "W8A8"}
# Schemes whose scales are told from the weights alone.
NO_CALIBRATION = frozenset({"fp8"})
LENGTH = 512
SAMPLES = 128
_GROUP = 128
_WORKER = Path(__file__).with_name("checkpoints_worker.py")
_STEP = re.compile(r"\((\d+)/(\d+)\)")


def check(header: Header, tag: str) -> None:
    """Refuse what llmcompressor can't make, before its environment is.

    Raises:
        UnsupportedError: another tag, a quantized checkpoint, or rows that the groups don't divide.
    """
    if tag not in SCHEMES:
        raise UnsupportedError(f"llmcompressor makes no {tag} here.", f"It makes {', '.join(SCHEMES)}.")
    if header.quant not in ("bf16", "fp16", "fp32"):
        raise UnsupportedError(
            f"{header.name} is already quantized ({header.quant}).", "Quantize the original 16-bit model."
        )
    if tag in ("awq", "gptq"):
        odd = [t for t in header.tensors if t.name.endswith("_proj.weight") and t.shape[-1] % _GROUP]
        if odd:
            raise UnsupportedError(
                f"{tag} scales groups of {_GROUP} weights, and the rows of {odd[0].name} have {odd[0].shape[-1]}.",
                "Take int8 or fp8, which have one scale a row.",
            )


def quantize(
    header: Header, tag: str, calibration: Sequence[Sequence[int]], *, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Make a checkpoint, or return the one that was made before.

    Args:
        header: the 16-bit folder's header.
        tag: awq, gptq, fp8 or int8.
        calibration: token ids of texts, one list a text, at most `LENGTH` tokens each; fp8 needs none.
        seed: seeds what is drawn.
        progress: told the phase and how much of it is done.

    Raises:
        UnsupportedError: it can't be made; see `check`.
        BadInputError: the calibration is empty.
        LoadError: the environment could not be made, the disk is full, or llmcompressor failed.
    """
    check(header, tag)
    target = vllm_forms.place_of(header, tag)
    if (target / "config.json").is_file():
        return target
    rows = [list(row[:LENGTH]) for row in calibration if len(row) > 1][:SAMPLES]
    if tag not in NO_CALIBRATION and not rows:
        raise BadInputError(
            f"{tag} is calibrated on text, and the calibration set is empty.", "Give texts: --data VAR, or a data set."
        )
    with_room(target, header.parameters * 1.5)
    python = environment(progress)
    with config.writing(target, error=LoadError):
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            job = {
                "model": str(header.path),
                "target": str(part / "out"),
                "scheme": tag,
                "ignore": ["lm_head"],
                "calibration": None,
                "length": LENGTH,
                "seed": seed,
            }
            if tag not in NO_CALIBRATION:
                job["calibration"] = str(part / "calibration.jsonl")
                (part / "calibration.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
            (part / "job.json").write_text(json.dumps(job), encoding="utf-8")
            _work([str(python), "-P", str(_WORKER), str(part / "job.json")], tag, progress)
            made = part / "out"
            _finish(header, made, tag, len(rows))
            return vllm_forms.install(made, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def environment(progress: Progress | None = None) -> Path:
    """The Python of llmcompressor's environment, made now if it isn't there (1.5 GB, some minutes).

    Raises:
        LoadError: pip failed, or the disk has no room.
    """
    home = config.cache_dir() / "envs" / f"llmcompressor-{VERSION}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = home / ".ready"
    if ready.is_file():
        return python
    with_room(home / "environment", 3e9)
    say = progress or (lambda _phase, _fraction: None)
    say("making llmcompressor's environment (once, 1.5 GB)", 0.0)
    run([sys.executable, "-m", "venv", str(home)], "make llmcompressor's environment")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # PyTorch's own index has the CPU build under the same version; a CUDA build would be gigabytes for nothing.
    cpu = ["--extra-index-url", _CPU_INDEX] if sys.platform == "linux" else []
    build = f"{TORCH}+cpu" if sys.platform == "linux" else TORCH
    say("installing torch (CPU build)", 0.2)
    run([*pip, build, *cpu], "install torch for llmcompressor")
    say("installing llmcompressor", 0.6)
    run([*pip, build, *PINS, *cpu], "install llmcompressor")
    with config.writing(ready, error=LoadError):
        ready.touch()
    return python


def _work(command: list[str], tag: str, progress: Progress | None) -> None:
    """Run the worker; its phases and llmcompressor's layers are the progress."""
    phase, tail = "start", deque[str](maxlen=20)

    def each(line: str) -> None:
        nonlocal phase
        if line.strip():
            tail.append(line)
        if line.startswith("@phase "):
            phase = line.split(maxsplit=1)[1].strip()
        step = _STEP.search(line)
        if progress is not None:
            progress(f"{tag}: {phase}", int(step[1]) / max(int(step[2]), 1) if step else None)

    code = follow(command, each)
    if code != 0:
        raise LoadError(
            f"llmcompressor could not make {tag} (status {code}, while it did: {phase}).",
            "Its last lines are below; nothing was kept.",
            log_tail="\n".join(tail),
        )


def _finish(header: Header, made: Path, tag: str, samples: int) -> None:
    """What llmcompressor leaves out or writes in its own way: the model's own small files, and where it came from."""
    int8.copy_around(header.path, made)
    note = {"base": vllm_forms.weights_digest(header), "by": f"llmcompressor {VERSION}", "scheme": SCHEMES[tag]}
    if tag not in NO_CALIBRATION:
        note["calibration"] = f"{samples} texts of at most {LENGTH} tokens"
    (made / vllm_forms.NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    for file in made.iterdir():
        file.chmod(0o644)
