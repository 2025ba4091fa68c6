"""The quant support table: which quant runs in which engine on which hardware, and why not.

Each engine defines its own rules in `Engine.runs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from llmlab.engines.registry import ENGINES, declared
from llmlab.errors import UnsupportedError
from llmlab.files import tags
from llmlab.machine.hardware import Hardware, has_avx512
from llmlab.types import FORMATS, EngineName

HARDWARE: tuple[Hardware, ...] = get_args(Hardware)


@dataclass(frozen=True, slots=True)
class Support:
    """One cell of the table.

    Attributes:
        ok: whether it runs.
        why: the reason if it doesn't; requirements or notes if it does, or "".
    """

    tag: str
    engine: EngineName
    hardware: Hardware
    ok: bool
    why: str = ""


def support(tag: str, engine: EngineName, hardware: Hardware, *, avx512: bool | None = None) -> Support:
    """Look up one cell.

    Args:
        tag: a canonical tag.
        engine: the engine.
        hardware: where the engine computes.
        avx512: whether the CPU has AVX-512 or doesn't need it (not x86); None checks this machine.
    """
    cls = declared(engine)
    if tags.TAGS[tag].format != FORMATS[engine]:
        why = cls.capabilities.formats_note or f"{engine} loads {FORMATS[engine]} only"
        return Support(tag, engine, hardware, ok=False, why=why)
    ok, why = cls.runs(tag, hardware, avx512=has_avx512() if avx512 is None else avx512)
    return Support(tag, engine, hardware, ok, why)


def table() -> Iterator[Support]:
    """All cells: each tag in each engine on each hardware, for a CPU with AVX-512."""
    for tag in tags.TAGS:
        for engine in ENGINES:
            for hardware in HARDWARE:
                yield support(tag, engine, hardware, avx512=True)


def nearest(tag: str, engine: EngineName, hardware: Hardware, *, avx512: bool | None = None) -> str | None:
    """The common tag closest in size that runs in an engine on a hardware, or None."""
    common = ("F16", "Q8_0", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "bf16", "fp8", "int8", "awq", "gptq")
    bits = tags.TAGS[tag].bits
    able = [name for name in common if name != tag and support(name, engine, hardware, avx512=avx512).ok]
    return min(able, key=lambda name: abs(tags.TAGS[name].bits - bits), default=None)


def check(tag: str, engine: EngineName, hardware: Hardware, *, avx512: bool | None = None) -> None:
    """Refuse a tag that an engine doesn't run on some hardware.

    Raises:
        UnsupportedError: with the reason and the closest alternative.
    """
    if tag not in tags.TAGS or (found := support(tag, engine, hardware, avx512=avx512)).ok:
        return
    same, own = nearest(tag, engine, hardware, avx512=avx512), tags.TAGS[tag].engine
    ways = [f"{same} in {engine}"] if same else []
    if own != engine and support(tag, own, hardware, avx512=avx512).ok:
        ways.insert(0, f"--engine {own}, which runs {tag}")
    raise UnsupportedError(
        f"{engine} doesn't run {tag} on {'the CPU' if hardware == 'CPU' else hardware}: {found.why}.",
        f"Closest alternative: {'; or '.join(ways)}." if ways else "There is no close alternative here.",
    )


def _sentence(text: str) -> str:
    """A reason as a sentence start; engine names keep their spelling."""
    return text if text.startswith(("vLLM", "ggml", "llama.cpp", "llmlab")) else f"{text[0].upper()}{text[1:]}"


def markdown() -> str:
    """The table for docs/quants.md: one row per tag, one column per engine and hardware."""
    columns = [(engine, hardware) for engine in ENGINES for hardware in HARDWARE]
    head = ["tag", "what it is", "bits", *(f"{engine} {hardware}" for engine, hardware in columns)]
    notes: list[str] = []

    def cell(found: Support) -> str:
        if not found.why:
            return "yes"
        if found.why not in notes:
            notes.append(found.why)
        return f"{'yes' if found.ok else 'no'} [{notes.index(found.why) + 1}]"

    rows = [
        [f"`{tag.name}`", tag.about, f"{tag.bits:g}"]
        + [cell(support(tag.name, *column, avx512=True)) for column in columns]
        for tag in tags.TAGS.values()
    ]
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    listed = [f"{number}. {_sentence(text)}." for number, text in enumerate(notes, 1)]
    return "\n".join([*(f"| {line} |" for line in lines), "", *listed])
