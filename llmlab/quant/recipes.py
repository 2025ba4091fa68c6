"""Make a quant of a model: GGUF with llama.cpp's quantizer, checkpoints with llmcompressor."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmlab.errors import BadInputError, LlmLabError, UnsupportedError
from llmlab.files import tags, token_ids, vision
from llmlab.files.headers import Header, read_header
from llmlab.quant import (
    checkpoints,
    gguf_cache,
    gguf_folder,
    gguf_quantizer,
    gguf_tokens,
    gguf_vocab,
    importance,
    llamacpp_source,
    vllm_forms,
)
from llmlab.types.progress import Progress

EXPANDED = "bf16"
"""The tag that expands a GGUF file to a folder."""
# How llama.cpp's converter reports a file of the tokenizer that isn't there.
_ABSENT = re.compile(r"(?:File not found|Error: Missing):? .*?([\w.-]+\.(?:model|json))\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Made:
    """A quantized model.

    Attributes:
        tag: its canonical tag.
        path: the GGUF file or the folder.
        bytes: the size of its weights on disk; `before` is the size before quantization.
        seconds: time taken; near 0 if it was cached.
        way: how it was made.

    Example:
        >>> made = llmlab.quantize("nano", "Q4_K_M")
        >>> made.tag, made.bytes < made.before
        ('Q4_K_M', True)
    """

    tag: str
    path: Path
    bytes: int
    before: int
    seconds: float
    way: str

    @property
    def line(self) -> str:
        """A one-line summary with the command to load it."""
        share = f"{self.before / 1e6:,.1f} MB → {self.bytes / 1e6:,.1f} MB"
        return f"{self.tag}: {share} in {self.seconds:.1f} s ({self.way}). Load it: %llm load {self.path}"

    def __repr__(self) -> str:
        return self.line


def make(
    base: Header,
    to: str,
    *,
    calibration: str | None = None,
    tokens: Callable[[Header], Sequence[Sequence[int]]] | None = None,
    progress: Progress | None = None,
) -> Made:
    """Make a quant of a model and keep it in the cache.

    Args:
        base: the header of a folder with 16-bit safetensors, or of a GGUF file: for a GGUF tag in 16 bits, for any
            other tag one that `llmlab.quant.gguf_folder` can expand.
        to: the tag.
        calibration: for a GGUF tag, the text for an importance matrix; None quantizes without one.
        tokens: for a checkpoint, the calibration set: model header -> token ids, one list per text.
        progress: called with the phase and the completed fraction.

    Raises:
        UnsupportedError: it can't be made; the hint names alternatives.
        BadInputError: an empty calibration set, or options that don't apply to the tag.
        LoadError: the disk is full, or a tool could not be fetched or failed; no partial file is left.
    """
    tag = tags.canonical(to)
    started = time.perf_counter()
    if tag.format == "gguf":
        before, path, way = _gguf(base, tag, calibration, progress)
        if base.format == "safetensors":
            gguf_tokens.warn(path, base.path)
        size = path.stat().st_size
    else:
        if calibration is not None:
            raise BadInputError(f"Importance matrices are for GGUF tags; {tag.name} isn't one.", "Leave it out.")
        if tag.name != EXPANDED and tag.name not in checkpoints.SCHEMES:
            raise UnsupportedError(
                f"{tag.name} can't be made here.",
                f"Made here: {', '.join(checkpoints.SCHEMES)}, and GGUF tags (Q4_K_M).",
            )
        before, origin = base.weight_bytes, ""
        if base.format == "gguf":
            origin = f"{base.path.name} ({base.quant}) expanded to a {EXPANDED} folder"
            base = read_header(gguf_folder.of(base, base.path.stem, progress))
        if tag.name == EXPANDED:
            path, way = _expanded(base), origin or f"the folder is {base.quant} already"
        else:
            path, way = _checkpoint(base, tag, tokens, progress)
            way = f"{origin}, then {way}" if origin else way
        if (base.path / "tokenizer.json").is_file() and (path / "tokenizer.json").is_file():
            ids = token_ids.of_folder(base.path), token_ids.of_folder(path)
            token_ids.warn(path.name, token_ids.differences(*ids), base.path)
        size = read_header(path).weight_bytes
    return Made(tag.name, path, size, before, time.perf_counter() - started, way)


def _expanded(header: Header) -> Path:
    """The 16-bit folder itself.

    Raises:
        UnsupportedError: it is quantized, and a quantized folder isn't expanded.
    """
    if header.quant not in ("bf16", "fp16", "fp32"):
        raise UnsupportedError(
            f"{header.name} is quantized ({header.quant}); only GGUF files are expanded to {EXPANDED}.",
            "Use the original 16-bit model.",
        )
    return header.path


def _checkpoint(
    header: Header, tag: tags.Tag, tokens: Callable[[Header], Sequence[Sequence[int]]] | None, progress: Progress | None
) -> tuple[Path, str]:
    checkpoints.check(header, tag.name)
    rows = tokens(header) if tokens is not None and tag.name not in checkpoints.NO_CALIBRATION else ()
    path = checkpoints.quantize(header, tag.name, rows, progress=progress)
    return path, f"{vllm_forms.note(path).get('by', 'llmcompressor')}, {checkpoints.SCHEMES[tag.name]}"


def _gguf(header: Header, tag: tags.Tag, calibration: str | None, progress: Progress | None) -> tuple[int, Path, str]:
    path = header.path
    if header.format == "gguf":
        base, way = path, f"llama.cpp's quantizer from {path.name}"
        if header.quant not in ("F32", "F16", "BF16"):
            raise UnsupportedError(
                f"{path.name} is already quantized ({header.quant}); quantizing it again would lose more quality.",
                "Start from the F16 file or the folder. Without either, expand the file to a folder and quantize that: "
                f"%llm quantize {path} --to {EXPANDED}",
            )
        name = path.stem
        place = path.parent
    else:
        _check_rows(header, tag)
        base, way = _base(header, progress)
        name, place = header.path.resolve().name, base.parent
        if tag.name == "F16":
            return header.weight_bytes, base, way
    if calibration is None:
        gguf_quantizer.check(tag)
        if (
            header.format == "safetensors"
            and base == gguf_cache.cached_path(header.path, "F16")
            and gguf_cache.can_convert(header) is None
        ):
            return header.weight_bytes, gguf_cache.to_gguf(header.path, quant=tag.name, progress=progress), way
    matrix = importance.imatrix(base, calibration, progress=progress) if calibration is not None else None
    mark = f"-imatrix-{hashlib.sha256((calibration or '').encode()).hexdigest()[:8]}" if matrix else ""
    target = place / f"{name}-{tag.name}{mark}.gguf"
    if not target.is_file():
        gguf_cache.with_room(target, base.stat().st_size * tag.bits / 16)
        gguf_cache.write_whole(
            target, lambda part: gguf_quantizer.quantize_file(base, part, tag, progress=progress, imatrix=matrix)
        )
    return base.stat().st_size, target, f"{way}{', with an importance matrix' if matrix else ''}"


def _check_rows(header: Header, tag: tags.Tag) -> None:
    """Refuse a tag whose blocks divide no row of the model: llama.cpp would store every matrix as another type."""
    rows = {t.shape[-1] for t in header.tensors if len(t.shape) == 2}
    if tag.block > 1 and rows and all(row % tag.block for row in rows):
        raise UnsupportedError(
            f"{tag.name} packs blocks of {tag.block} weights, but no row length of {header.name} is a multiple of that "
            f"({', '.join(map(str, sorted(rows)))}): nothing would be stored as {tag.name}.",
            "Use a tag with blocks of 32: Q8_0, Q5_0, Q4_0 or IQ4_NL." if not any(r % 32 for r in rows) else "Use F16.",
        )


def _base(header: Header, progress: Progress | None) -> tuple[Path, str]:
    """The F16 file of a folder: written by llmlab if possible, otherwise by llama.cpp's converter."""
    reason = gguf_cache.can_convert(header)
    if reason is None:
        return gguf_cache.to_gguf(
            header.path, quant="F16", progress=progress
        ), "llmlab's converter, llama.cpp's quantizer"
    if header.metadata.get("quantization_config"):
        raise UnsupportedError(reason)
    target = gguf_cache.cached_path(header.path, "F16")
    if not target.is_file():
        script = llamacpp_source.folder(progress) / "convert_hf_to_gguf.py"
        gguf_cache.with_room(target, header.parameters * 2)

        def write(part: Path) -> None:
            if progress is not None:
                progress("converting with llama.cpp's converter", None)
            try:
                with gguf_vocab.one_template(header.path) as folder:
                    command = [sys.executable, str(script), str(folder), "--outfile", str(part), "--outtype", "f16"]
                    llamacpp_source.run(command, f"convert {header.name} with llama.cpp's converter")
            except LlmLabError as error:
                tail = getattr(error, "log_tail", "")
                if absent := _ABSENT.search(tail):
                    raise UnsupportedError(
                        f"llama.cpp's converter needs {absent[1]} for the tokenizer of {header.name} "
                        f"({header.architecture}), and the folder doesn't have it.",
                        f"Copy {absent[1]} from the original repository into {header.path}, or use --engine vllm.",
                    ) from error
                if "is not supported" in tail or "NotImplementedError" in tail:
                    raise UnsupportedError(
                        f"llama.cpp's converter doesn't support {header.architecture} or its tokenizer: "
                        f"{tail.strip().splitlines()[-1]}",
                        "Load it with --engine vllm, or search for an existing GGUF: %llm pull.",
                    ) from error
                raise

        gguf_cache.write_whole(target, write)
        if vision.sees(header.path):
            _projector(header, script, target.with_name(gguf_cache.PROJECTOR), progress)
    return target, "llama.cpp's converter and quantizer"


def _projector(header: Header, script: Path, target: Path, progress: Progress | None) -> None:
    """The projector of a vision model, next to its GGUF file, where loads find it."""
    if progress is not None:
        progress("converting the projector", None)

    def write(part: Path) -> None:
        command = [
            sys.executable,
            str(script),
            str(header.path),
            "--outfile",
            str(part),
            "--outtype",
            "f16",
            "--mmproj",
        ]
        llamacpp_source.run(command, f"convert the projector of {header.name} with llama.cpp's converter")
        for made in part.parent.glob(f"mmproj-{part.name}"):  # it puts its own prefix before some names
            made.replace(part)

    gguf_cache.write_whole(target, write)
