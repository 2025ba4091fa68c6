"""The quant tags: a canonical name, the engine that runs it, and the bits per weight of each.

There are two families. GGUF types, upper case, run in llamacpp (`Q4_K_M`); checkpoint formats of Hugging Face folders,
lower case, run in vllm (`awq`). `BF16` and `bf16` are the same numbers in the two formats.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from llmlab.errors import BadInputError, UnsupportedError, unknown
from llmlab.types import FORMATS, EngineName, Format

Making = Literal["convert", "quantize", "checkpoint"]


@dataclass(frozen=True, slots=True)
class Tag:
    """One quantization.

    Attributes:
        name: the canonical name.
        format: the file format it comes in.
        bits: mean bits a weight takes, scales included.
        making: convert (written straight from the safetensors), quantize (from a converted file), or checkpoint
            (comes as a folder of its own).
        ftype: llama.cpp's `llama_ftype`, which GGUF files carry as `general.file_type`; None outside GGUF.
        block: its main type applies only to rows whose length is a multiple of this.
        about: a short description.
    """

    name: str
    format: Format
    bits: float
    making: Making
    ftype: int | None = None
    block: int = 1
    about: str = ""

    @property
    def engine(self) -> EngineName:
        """The engine that loads it: the first for its format."""
        return native(self.format)


def native(form: Format) -> EngineName:
    """The first engine that loads a format."""
    return next(engine for engine, loaded in FORMATS.items() if loaded == form)


def _gguf(name: str, ftype: int, bits: float, block: int, about: str, making: Making = "quantize") -> Tag:
    return Tag(name, "gguf", bits, making, ftype, block, about)


def _folder(name: str, bits: float, about: str) -> Tag:
    return Tag(name, "safetensors", bits, "checkpoint", None, 1, about)


# Bits: from llama.cpp's tools/quantize (README.md: Llama-3.1-8B; quantize.cpp for types missing there);
# ftype: enum llama_ftype in llama.h; block: ggml's block sizes (QK_K = 256, QK4_0 ... QK8_0 = 32).
_TAGS: tuple[Tag, ...] = (
    _gguf("F32", 0, 32.0, 1, "32-bit floats", "convert"),
    _gguf("F16", 1, 16.0, 1, "16-bit floats", "convert"),
    _gguf("BF16", 32, 16.0, 1, "16-bit floats with the range of 32-bit floats", "convert"),
    _gguf("Q8_0", 7, 8.5008, 32, "8 bits, almost lossless"),
    _gguf("Q6_K", 18, 6.5633, 256, "6 bits"),
    _gguf("Q5_K_M", 17, 5.7036, 256, "5 bits, a few tensors at 6"),
    _gguf("Q5_K_S", 16, 5.5704, 256, "5 bits"),
    _gguf("Q5_1", 9, 6.0, 32, "5 bits, older form"),
    _gguf("Q5_0", 8, 5.5, 32, "5 bits, older form"),
    _gguf("Q4_K_M", 15, 4.8944, 256, "4 bits, a few tensors at 6: the usual choice"),
    _gguf("Q4_K_S", 14, 4.6672, 256, "4 bits"),
    _gguf("Q4_1", 3, 5.0, 32, "4 bits, older form"),
    _gguf("Q4_0", 2, 4.5, 32, "4 bits, older form, fast on CPUs"),
    _gguf("IQ4_NL", 25, 4.6818, 32, "4 bits, non-linear"),
    _gguf("IQ4_XS", 30, 4.4597, 256, "4 bits, non-linear, smaller"),
    _gguf("Q3_K_L", 13, 4.2979, 256, "3 bits, a few tensors at 5"),
    _gguf("Q3_K_M", 12, 3.9960, 256, "3 bits, a few tensors at 4 and 5"),
    _gguf("Q3_K_S", 11, 3.6429, 256, "3 bits"),
    _gguf("IQ3_M", 27, 3.7628, 256, "3 bits, non-linear"),
    _gguf("IQ3_S", 26, 3.6606, 256, "3 bits, non-linear"),
    _gguf("IQ3_XS", 22, 3.4977, 256, "3 bits, non-linear"),
    _gguf("IQ3_XXS", 23, 3.2548, 256, "3 bits, non-linear"),
    _gguf("Q2_K", 10, 3.1593, 256, "2 bits, much lower quality"),
    _gguf("Q2_K_S", 21, 2.9697, 256, "2 bits, much lower quality"),
    _gguf("IQ2_M", 29, 2.9294, 256, "2 bits, needs an importance matrix"),
    _gguf("IQ2_S", 28, 2.7403, 256, "2 bits, needs an importance matrix"),
    _gguf("IQ2_XS", 20, 2.5882, 256, "2 bits, needs an importance matrix"),
    _gguf("IQ2_XXS", 19, 2.3824, 256, "2 bits, needs an importance matrix"),
    _gguf("IQ1_M", 31, 2.1460, 256, "under 2 bits, needs an importance matrix"),
    _gguf("IQ1_S", 24, 2.0042, 256, "under 2 bits, needs an importance matrix"),
    _gguf("TQ2_0", 37, 2.06, 256, "for models trained with ternary weights"),
    _gguf("TQ1_0", 36, 1.69, 256, "for models trained with ternary weights"),
    _gguf("MXFP4", 38, 4.25, 32, "4-bit floats with shared exponents, for mixtures of experts"),
    _folder("fp32", 32.0, "32-bit floats"),
    _folder("fp16", 16.0, "16-bit floats"),
    _folder("bf16", 16.0, "16-bit floats with the range of 32-bit floats"),
    _folder("fp8", 8.1, "8-bit floats"),
    _folder("fp8_per_tensor", 8.1, "8-bit floats, one scale per tensor"),
    _folder("fp8_per_block", 8.1, "8-bit floats, one scale per block of 128 x 128"),
    _folder("int8", 8.1, "8-bit integers, weights and activations"),
    # 4-bit groups of 128 with a 16-bit scale (and a 4-bit zero point for awq); embeddings stay at 16 bits.
    _folder("awq", 4.25, "4-bit integers, scaled by activations"),
    _folder("gptq", 4.2, "4-bit integers, error-compensated"),
    _folder("mxfp8", 8.25, "8-bit floats with shared exponents"),
    _folder("mxfp4", 4.25, "4-bit floats with shared exponents"),
)

TAGS: dict[str, Tag] = {tag.name: tag for tag in _TAGS}

# Other spellings, by format: what people type for the same thing.
_ALIASES: dict[Format, dict[str, str]] = {
    "gguf": {
        "fp16": "F16", "float16": "F16", "half": "F16", "fp32": "F32", "float32": "F32", "bfloat16": "BF16",
        "q8": "Q8_0", "q6": "Q6_K", "q5": "Q5_K_M", "q4": "Q4_K_M", "q3": "Q3_K_M", "q2": "Q2_K",
        "q5_k": "Q5_K_M", "q4_k": "Q4_K_M", "q3_k": "Q3_K_M", "mxfp4_moe": "MXFP4",
    },
    "safetensors": {
        "f16": "fp16", "float16": "fp16", "half": "fp16", "f32": "fp32", "float32": "fp32", "bfloat16": "bf16",
        "w8a8": "int8", "int8_per_channel_weight_only": "int8", "fp8_per_channel": "fp8", "fp8_dynamic": "fp8",
        "w4a16": "gptq", "w4a16_asym": "awq", "awq_marlin": "awq", "gptq_marlin": "gptq",
    },
}  # fmt: skip


def names(engine: EngineName | None = None) -> tuple[str, ...]:
    """The canonical quant tags, from the largest to the smallest within each engine.

    Args:
        engine: vllm or llamacpp; None: both.

    Returns:
        The tags.

    Example:
        >>> llmlab.files.tags.names("vllm")
        ('fp32', 'fp16', 'bf16', 'fp8', 'fp8_per_tensor', 'fp8_per_block', 'int8', 'awq', 'gptq', 'mxfp8', 'mxfp4')
    """
    return tuple(tag.name for tag in _TAGS if engine is None or tag.format == FORMATS[engine])


def _lookup(text: str, form: Format) -> Tag | None:
    lowered = text.strip().lower().replace("-", "_")
    name = _ALIASES[form].get(lowered, lowered)
    return next((tag for tag in _TAGS if tag.format == form and tag.name.lower() == name.lower()), None)


def canonical(text: str, engine: EngineName | None = None) -> Tag:
    """The tag for a spelling.

    Args:
        text: a tag in any case, or a common other spelling (`q4_k_m`, `fp16`, `Q4_K`).
        engine: the engine; `bf16` means BF16 (GGUF) for llamacpp and bf16 (a folder) for vllm. None tries the exact
            case first, then llamacpp's spellings.

    Raises:
        UnknownNameError: no tag has this name; the error names the closest match.
        BadInputError: it isn't a text.
        UnsupportedError: the tag is the other engine's.
    """
    if not isinstance(text, str):
        raise BadInputError(f"A quant is a text, got {text!r:.80}.", "For example 'Q4_K_M'.")
    readings = {form: tag for form in get_args(Format) if (tag := _lookup(text, form)) is not None}
    if engine is None:
        found = TAGS.get(text.strip()) or next(iter(readings.values()), None)
    else:
        found = readings.get(FORMATS[engine])
    if found is not None:
        return found
    if engine is not None and readings:
        elsewhere = next(iter(readings.values()))
        other = elsewhere.engine
        raise UnsupportedError(
            f"{engine} doesn't support the quant {elsewhere.name}: it is one of {other}'s ({elsewhere.about}).",
            f"Use --engine {other}, or one of {engine}'s: {', '.join(names(engine))}.",
        )
    raise unknown("quant", text, names(engine))


def known(text: str, engine: EngineName) -> bool:
    """Whether an engine has a tag of this name or spelling."""
    return _lookup(text, FORMATS[engine]) is not None


def of_ftype(ftype: int) -> str | None:
    """The tag of a GGUF file's `general.file_type`, or None if unknown."""
    return next((tag.name for tag in _TAGS if tag.ftype == ftype), None)


def in_filename(filename: str) -> str | None:
    """The tag in a GGUF file's name (`Model-7B-Q4_K_M.gguf`, `model.q8_0.gguf`), or None."""
    stem = filename.rsplit("/", 1)[-1].lower().removesuffix(".gguf").replace("-", ".").replace("_", ".")
    padded = f".{stem}."
    for name in sorted(names(native("gguf")), key=len, reverse=True):
        if f".{name.lower().replace('_', '.')}." in padded:
            return name
    return "F16" if ".fp16." in padded else None


def in_repository(repo: str, labels: Iterable[str] = ()) -> str | None:
    """The checkpoint tag suggested by a repository's name, or else by its labels on the hub; None if there is none.

    Args:
        repo: `org/name`.
        labels: its tags on the hub (`awq`, `fp8`, `4-bit`).
    """
    marks = (
        ("awq", "awq"), ("gptq", "gptq"), ("fp8", "fp8"), ("w8a8", "int8"), ("int8", "int8"), ("w4a16", "gptq"),
        ("mxfp4", "mxfp4"),
    )  # fmt: skip
    for text in (repo.lower(), " ".join(labels).lower()):
        for mark, tag in marks:
            if mark in text:
                return tag
    return None
