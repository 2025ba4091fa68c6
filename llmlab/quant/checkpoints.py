"""Make awq, gptq, fp8 and int8 checkpoints with llmcompressor.

Its pins conflict with vLLM's (compressed-tensors), so it runs as a worker process in its own virtual environment,
which is created in the cache at first use.
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
from llmlab.files.gguf import TensorInfo
from llmlab.files.headers import Header
from llmlab.quant import int8, vllm_forms
from llmlab.quant.gguf_cache import with_room
from llmlab.quant.llamacpp_source import run
from llmlab.quant.process import follow
from llmlab.types.progress import Progress

VERSION = "0.14.0.1"
# torch is installed first, so that no other version is pulled in; the other pins were tested together (Python 3.11).
TORCH = "torch==2.13.0"
PINS = (
    f"llmcompressor=={VERSION}", "transformers==5.17.0", "compressed-tensors==0.19.0", "datasets==5.2.0",
    "accelerate==1.15.0", "auto-round==0.15.1",
)  # fmt: skip
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SCHEMES = {"awq": "W4A16_ASYM", "gptq": "W4A16", "fp8": "FP8_DYNAMIC", "int8": "W8A8"}
# Schemes that compute scales from the weights alone.
NO_CALIBRATION = frozenset({"fp8"})
LENGTH = 512
SAMPLES = 128
# Weights with one scale: 128 is the preset; the smaller ones are for models whose rows it doesn't divide.
_GROUPS = (128, 64, 32)
_WORKER = Path(__file__).with_name("checkpoints_worker.py")
_STEP = re.compile(r"\((\d+)/(\d+)\)")


def check(header: Header, tag: str) -> None:
    """Refuse what llmcompressor can't make, before its environment is created.

    Raises:
        UnsupportedError: another tag, a quantized checkpoint, or rows not divisible by the group size.
    """
    if tag not in SCHEMES:
        raise UnsupportedError(f"llmcompressor doesn't make {tag} here.", f"It makes {', '.join(SCHEMES)}.")
    if header.quant not in ("bf16", "fp16", "fp32"):
        raise UnsupportedError(
            f"{header.name} is already quantized ({header.quant}).", "Quantize the original 16-bit model."
        )
    if tag in ("awq", "gptq"):
        odd = [t for t in _grouped(header) if t.shape[-1] % _GROUPS[-1]]
        if odd:
            raise UnsupportedError(
                f"{tag} scales groups of {_GROUPS[-1]} weights or more, but the rows of {odd[0].name} have "
                f"{odd[0].shape[-1]}.",
                "Use int8 or fp8, which have one scale per row.",
            )


def group_size(header: Header) -> int:
    """The number of weights with one scale in an awq or gptq checkpoint: the largest that divides all rows."""
    rows = {t.shape[-1] for t in _grouped(header)}
    return next((size for size in _GROUPS if not any(row % size for row in rows)), _GROUPS[-1])


def _grouped(header: Header) -> list[TensorInfo]:
    return [t for t in header.tensors if t.name.endswith("_proj.weight")]


def quantize(
    header: Header, tag: str, calibration: Sequence[Sequence[int]], *, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Make a checkpoint, or return the cached one.

    Args:
        header: the 16-bit folder's header.
        tag: awq, gptq, fp8 or int8.
        calibration: token ids, one list per text, truncated to `LENGTH` tokens each; not needed for fp8.
        seed: random seed.
        progress: called with the phase and the completed fraction.

    Raises:
        UnsupportedError: it can't be made; see `check`.
        BadInputError: the calibration set is empty.
        LoadError: the environment could not be created, the disk is full, or llmcompressor failed.
    """
    check(header, tag)
    target = vllm_forms.place_of(header, tag)
    if config.is_file(target / "config.json"):
        return target
    rows = [list(row[:LENGTH]) for row in calibration if len(row) > 1][:SAMPLES]
    if tag not in NO_CALIBRATION and not rows:
        raise BadInputError(
            f"{tag} is calibrated on text, but the calibration set is empty.", "Pass texts: --data VAR, or a data set."
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
                "group": group_size(header),
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
    """The Python of llmcompressor's environment, created if needed (1.5 GB, a few minutes).

    Raises:
        LoadError: pip failed, or the disk is full.
    """
    home = config.cache_dir() / "envs" / f"llmcompressor-{VERSION}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = home / ".ready"
    if config.is_file(ready):
        return python
    with_room(home / "environment", 3e9)
    say = progress or (lambda _phase, _fraction: None)
    say("creating llmcompressor's environment (once, 1.5 GB)", 0.0)
    run([sys.executable, "-m", "venv", str(home)], "create llmcompressor's environment")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # PyTorch's own index has the CPU build of the same version; the CUDA build is gigabytes larger and not needed.
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
    """Run the worker; progress follows its phases and llmcompressor's layers."""
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
            f"llmcompressor could not make {tag} (exit status {code}, in phase {phase!r}).",
            "Its last lines are below. Nothing was kept.",
            log_tail="\n".join(tail),
        )


def _finish(header: Header, made: Path, tag: str, samples: int) -> None:
    """Add what llmcompressor omits: the model's small files, and a note on where the checkpoint came from."""
    int8.copy_around(header.path, made)
    note = {"base": vllm_forms.weights_digest(header), "by": f"llmcompressor {VERSION}", "scheme": SCHEMES[tag]}
    if tag not in NO_CALIBRATION:
        note["calibration"] = f"{samples} texts of at most {LENGTH} tokens"
    (made / vllm_forms.NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    for file in made.iterdir():
        file.chmod(0o644)
