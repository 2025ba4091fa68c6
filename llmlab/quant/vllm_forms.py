"""The quants of a 16-bit folder that are available to vLLM, and how each is made.

An existing checkpoint comes first: inside the folder (`nano/awq`), next to it (`nano-awq`), or in the cache, where
`%llm quantize` writes. Otherwise vLLM quantizes while loading ("online"), or llmlab makes int8 in seconds and caches
it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from llmlab import config
from llmlab.errors import LlmLabError, LoadError
from llmlab.files import tags
from llmlab.files.headers import Header, read_header
from llmlab.files.jsonfile import read_optional
from llmlab.hub.form import Action, Form
from llmlab.hub.spec import Spec
from llmlab.quant import int8
from llmlab.types.progress import Progress

CHECKPOINTS = ("awq", "gptq", "fp8", "int8")
# vLLM 0.32's names of its online quantizations (vllm/config/quantization.py, _ONLINE_SHORTHANDS).
ONLINE = {
    "fp8": "fp8_per_channel",
    "fp8_per_tensor": "fp8_per_tensor",
    "fp8_per_block": "fp8_per_block",
    "mxfp8": "mxfp8",
}
ONLINE_EXPERTS = {"int8": "int8_per_channel_weight_only"}
NOTE = "llmlab.json"
_PLAIN = ("bf16", "fp16", "fp32")


def of(spec: Spec, header: Header) -> Mapping[str, Form]:
    """The forms of a folder by tag; none if it is already quantized."""
    if header.quant not in _PLAIN:
        return {}
    out: dict[str, Form] = {}
    for tag in CHECKPOINTS:
        found = checkpoint(header, tag)
        if found is not None:
            out[tag] = _form(spec, header, tag, found, way=f"checkpoint, {_origin(found)}")
    for tag, name in ONLINE.items():
        way = f"online: vLLM quantizes it while loading ({name})"
        out.setdefault(tag, _form(spec, header, tag, header.path, online=name, way=way))
    if "int8" not in out:
        if header.is_mixture:
            name = ONLINE_EXPERTS["int8"]
            way = f"online: vLLM quantizes the experts while loading ({name})"
            out["int8"] = _form(spec, header, "int8", header.path, online=name, way=way)
        elif int8.why_not(header) is None:
            way = "made by llmlab: weights rounded to nearest, no calibration"
            made = place_of(header, "int8", "rounded")
            ready = made if config.is_file(made / "config.json") else None
            out["int8"] = _form(
                spec, header, "int8", ready, way=way, make=lambda progress: _make_int8(header, made, progress)
            )
    return out


def _form(
    spec: Spec, header: Header, tag: str, path: Path | None, *, way: str, online: str | None = None,
    make: Callable[[Progress | None], Path] | None = None,
) -> Form:  # fmt: skip
    action: Action = "ready" if path is not None else "convert"
    size = 0 if path is not None else int(header.parameters * tags.TAGS[tag].bits / 8)
    return Form(
        spec, tags.native("safetensors"), tag, "safetensors", action, str(path or header.path), size, path, header.path,
        online=online, way=way, make=make, header=header,
    )  # fmt: skip


def checkpoint(header: Header, tag: str) -> Path | None:
    """A local checkpoint of this model with that tag, or None."""
    folder = header.path
    for place in (folder / tag, folder.parent / f"{folder.name}-{tag}", place_of(header, tag)):
        if config.is_file(place / "config.json") and _fits(header, place, tag):
            return place
    return None


def place_of(header: Header, tag: str, how: str = "") -> Path:
    """The cache folder of a checkpoint, named by a digest of the base's weights."""
    name = f"{header.path.resolve().name}-{tag}{'-' + how if how else ''}"
    return config.cache_dir() / "checkpoints" / weights_digest(header)[:16] / name


_digests: dict[tuple[object, ...], str] = {}


def weights_digest(header: Header) -> str:
    """SHA-256 (hex) of a folder's weight files; of files above 64 MiB only the first MiB, size and time."""
    stats = [(file, file.stat()) for file in header.files]
    key = tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats)
    if key not in _digests:
        out = hashlib.sha256()
        for file, stat in stats:
            with file.open("rb") as handle:
                if stat.st_size <= 64 * 2**20:
                    out.update(handle.read())
                else:
                    out.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode() + handle.read(2**20))
        _digests[key] = out.hexdigest()
    return _digests[key]


def install(made: Path, target: Path) -> Path:
    """Move a complete folder to its final path; if another process was faster, keep its result."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(target)
    except OSError:
        if not (target / "config.json").is_file():
            raise
        shutil.rmtree(made, ignore_errors=True)
    return target


def note(folder: Path) -> Mapping[str, str]:
    """The note that llmlab adds to its checkpoints: base (digest of its weights), by, scheme; {} for others."""
    return {str(k): str(v) for k, v in read_optional(folder / NOTE).items()}


def _origin(folder: Path) -> str:
    by = note(folder).get("by")
    return f"made by {by}" if by else folder.name


def _fits(header: Header, place: Path, tag: str) -> bool:
    """Whether a checkpoint has this tag and is of this model, by its recorded digest or else by its shapes."""
    try:
        other = read_header(place)
    except LlmLabError:
        return False
    base = note(place).get("base")
    same = ("architecture", "layers", "hidden", "heads", "vocab_size")
    alike = all(getattr(header, name) == getattr(other, name) for name in same)
    return other.quant == tag and alike and base in (None, weights_digest(header))


def _make_int8(header: Header, target: Path, progress: Progress | None) -> Path:
    from llmlab.quant.gguf_cache import with_room

    if config.is_file(target / "config.json"):
        return target
    with_room(target, header.parameters * 1.1)
    with config.writing(target, error=LoadError):
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            int8.write(header, part, progress)
            part.chmod(0o755)
            return install(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
