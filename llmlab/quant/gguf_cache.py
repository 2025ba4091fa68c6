"""GGUF files converted from Hugging Face folders at first use and kept in the cache.

A file's folder is named by a digest of everything that determines its content (weights, tokenizer, configuration, the
writer's version), so a retrained model never gets an old file. Files are written under a temporary name and renamed
when complete, so partial files never have the final name and concurrent conversions are safe.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from llmlab import config
from llmlab.errors import LoadError, UnsupportedError
from llmlab.files import tags
from llmlab.files.headers import Header, read_header
from llmlab.types.progress import Progress

# Weight files up to this size are hashed completely (11 MB take 10 ms); larger ones by first MiB, size and time.
_HASHED_WHOLE = 64 * 2**20
PROJECTOR = "mmproj-model-f16.gguf"
"""The projector's file next to a vision model's, where loads find it."""
# Files besides the weights that determine the GGUF; the model card provides name and licence.
_SHAPING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "README.md",
)


def to_gguf(folder: str | Path, *, quant: str = "F16", progress: Progress | None = None) -> Path:
    """The GGUF file of a Hugging Face folder, converted now if it isn't in the cache.

    Args:
        folder: a folder with config.json, safetensors and tokenizer.json: LlamaForCausalLM with a byte-level BPE, or
            LLaVA with such a model, whose projector is written next to it.
        quant: F32, F16 or BF16 (written directly from the safetensors), or any tag that llama.cpp's quantizer makes
            (from the F16 file).
        progress: called with the phase ("convert", "quantize") and the completed fraction, 0 to 1.

    Returns:
        The file.

    Raises:
        UnsupportedError: an architecture, tokenizer or tag that can't be converted here; the hint names alternatives.
        LoadError: the folder is invalid, the disk is full, or the quantizer failed.
    """
    tag = tags.canonical(quant, tags.native("gguf"))
    folder = Path(folder)
    target = cached_path(folder, tag.name)
    if config.is_file(target):
        return target
    from llmlab.quant import gguf_projector, gguf_quantizer, gguf_tokens, gguf_writer

    header = read_header(folder)
    gguf_writer.check(header)
    if header.architecture == gguf_writer.LLAVA and not config.is_file(target.parent / PROJECTOR):
        with_room(target, header.parameters * 2)
        write_whole(target.with_name(PROJECTOR), lambda part: gguf_projector.write(header, part))
    if tag.making == "convert":
        with_room(target, header.parameters * tag.bits / 8)
        made = write_whole(target, lambda part: gguf_writer.write(header, part, tag.name, progress))
        gguf_tokens.warn(made, folder)
        return made
    gguf_quantizer.check(tag)
    source = to_gguf(folder, quant="F16", progress=progress)
    with_room(target, header.parameters * tag.bits / 8)
    return write_whole(target, lambda part: gguf_quantizer.quantize_file(source, part, tag, progress=progress))


def cached_path(folder: Path, tag: str) -> Path:
    """The path of a folder's GGUF file in the cache, whether or not it exists.

    Args:
        folder: the Hugging Face folder.
        tag: the canonical quant tag.
    """
    return cached_paths(folder)(tag)


def cached_paths(folder: Path) -> Callable[[str], Path]:
    """Like `cached_path`, for many tags of one folder, which is hashed once."""
    place = config.cache_dir() / "gguf" / digest(folder)[:16]
    absolute = folder.resolve()
    # The hub cache names snapshots by commit; the repository's name is two folders up.
    hub = absolute.parent.parent.name
    name = hub.rsplit("--", 1)[-1] if hub.startswith("models--") else absolute.name
    return lambda tag: place / f"{name or 'model'}-{tag}.gguf"


def digest(folder: Path) -> str:
    """SHA-256 (hex) of everything in a folder that determines its GGUF, and of the writer's version.

    Cached while the files' sizes and times don't change, because every change of quant needs it.
    """
    shaping = [folder / name for name in _SHAPING if (folder / name).is_file()]
    stats = [(str(file), file.stat()) for file in (*shaping, *sorted(folder.glob("*.safetensors")))]
    return _digest(folder, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


@functools.lru_cache(maxsize=32)
def _digest(folder: Path, _state: tuple[tuple[str, int, int], ...]) -> str:
    from llmlab.quant import gguf_writer

    out = hashlib.sha256(f"llmlab gguf {gguf_writer.VERSION}\n".encode())
    for name in _SHAPING:
        file = folder / name
        if file.is_file():
            data = file.read_bytes()
            out.update(f"{name} {len(data)}\n".encode() + data)
    for file in sorted(folder.glob("*.safetensors")):
        stat = file.stat()
        out.update(f"{file.name} {stat.st_size}\n".encode())
        with file.open("rb") as handle:
            if stat.st_size <= _HASHED_WHOLE:
                out.update(handle.read())
            else:
                out.update(f"{stat.st_mtime_ns}\n".encode() + handle.read(2**20))
    return out.hexdigest()


def can_convert(header: Header) -> str | None:
    """Why a folder can't be converted here, in one line, or None if it can. Checks the tokenizer too."""
    from llmlab.quant import gguf_vocab, gguf_writer

    try:
        gguf_writer.check(header)
        gguf_vocab.check(header.path)
    except (UnsupportedError, LoadError) as error:
        return str(error)
    return None


def with_room(target: Path, needed: float) -> None:
    """Check that the disk has enough space for a file, and create its folder.

    Args:
        target: the file to write.
        needed: its size in bytes.

    Raises:
        LoadError: there isn't enough space, or the folder can't be created.
    """
    with config.writing(target, error=LoadError):
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
    if free < needed * 1.02 + 2**20:
        raise LoadError(
            f"The disk of {target.parent} has {free / 1e6:,.0f} MB free; {target.name} needs {needed / 1e6:,.0f} MB.",
            "Free some space, or set LLMLAB_CACHE to a folder on another disk.",
        )


def write_whole(target: Path, write: Callable[[Path], None]) -> Path:
    """Write a file under a temporary name in the same folder and rename it; a failure leaves nothing behind.

    Raises:
        LoadError: the disk is full, or the folder can't be written.
    """
    with config.writing(target, error=LoadError):
        _sweep(target.parent)
        with config.replacing(target) as part:
            write(part)
    return target


def _sweep(folder: Path) -> None:
    """Remove leftovers of killed processes (parts older than a day)."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > 86400:
                part.unlink()
        except OSError:
            continue
