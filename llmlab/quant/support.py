"""Which quant runs in which engine on which hardware, and why not: one table, which code, errors and docs share.

Each engine's own rules are in its room (`Engine.runs`).
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
        ok: it runs.
        why: for a no the reason; for a yes what there is to know, or "".
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
        avx512: the CPU has AVX-512, or needs none (other than x86); None asks this machine.
    """
    cls = declared(engine)
    if tags.TAGS[tag].format != FORMATS[engine]:
        why = cls.capabilities.formats_note or f"{engine} loads {FORMATS[engine]} only"
        return Support(tag, engine, hardware, ok=False, why=why)
    ok, why = cls.runs(tag, hardware, avx512=has_avx512() if avx512 is None else avx512)
    return Support(tag, engine, hardware, ok, why)


def table() -> Iterator[Support]:
    """All cells: tag by tag, for each engine on each hardware; a CPU with AVX-512."""
    for tag in tags.TAGS:
        for engine in ENGINES:
            for hardware in HARDWARE:
                yield support(tag, engine, hardware, avx512=True)


def nearest(tag: str, engine: EngineName, hardware: Hardware, *, avx512: bool | None = None) -> str | None:
    """The tag that runs on an engine and hardware and whose weights take the most similar room; usual ones first."""
    usual = ("F16", "Q8_0", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "bf16", "fp8", "int8", "awq", "gptq")
    bits = tags.TAGS[tag].bits
    able = [name for name in usual if name != tag and support(name, engine, hardware, avx512=avx512).ok]
    return min(able, key=lambda name: abs(tags.TAGS[name].bits - bits), default=None)


def check(tag: str, engine: EngineName, hardware: Hardware, *, avx512: bool | None = None) -> None:
    """Refuse a tag that an engine doesn't run on this hardware.

    Raises:
        UnsupportedError: it doesn't; the reason, and the nearest thing that works, are named.
    """
    if tag not in tags.TAGS or (found := support(tag, engine, hardware, avx512=avx512)).ok:
        return
    same, own = nearest(tag, engine, hardware, avx512=avx512), tags.TAGS[tag].engine
    ways = [f"{same} in {engine}"] if same else []
    if own != engine and support(tag, own, hardware, avx512=avx512).ok:
        ways.insert(0, f"--engine {own}, which runs {tag}")
    raise UnsupportedError(
        f"{engine} does not run {tag} on {'the CPU' if hardware == 'CPU' else hardware}: {found.why}.",
        f"Nearest that works: {'; or '.join(ways)}." if ways else "Nothing near it works here.",
    )


def _sentence(text: str) -> str:
    """A reason as the start of a sentence; the engines' names keep their spelling."""
    return text if text.startswith(("vLLM", "ggml", "llama.cpp", "llmlab")) else f"{text[0].upper()}{text[1:]}"


def markdown() -> str:
    """The table for docs/quants.md: one row a tag, one column for each engine and hardware."""
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
