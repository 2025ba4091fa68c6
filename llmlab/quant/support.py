"""The quant support table: which quant runs in which engine on which hardware, and why not.

The code, the errors and docs/quants.md share it. Sources: vLLM 0.32's kernels (vllm/model_executor/kernels/linear,
vllm/config/quantization.py), tests on a CPU without AMX, and llama.cpp's ggml-cpu, ggml-cuda and ggml-metal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmlab.errors import UnsupportedError
from llmlab.files import tags
from llmlab.machine.hardware import has_avx512
from llmlab.types import EngineName

Hardware = Literal["CPU", "CUDA", "Metal"]
HARDWARE: tuple[Hardware, ...] = ("CPU", "CUDA", "Metal")
ENGINES: tuple[EngineName, ...] = ("llamacpp", "vllm")


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


_NO_GGUF = "GGUF is not built into vLLM 0.32"
_NO_FOLDER = "llama.cpp reads GGUF files only"
_NO_VLLM_METAL = "vLLM has no build for Apple GPUs"
_TERNARY = {"TQ1_0", "TQ2_0"}
_CPU_NO = {
    "fp8_per_tensor": "vLLM's CPU build lacks the per-tensor scaling operation (static_scaled_fp8_quant)",
    "fp8_per_block": "vLLM's CPU kernel for it needs AMX (Sapphire Rapids or newer)",
    "mxfp8": "vLLM's CPU build has no kernel for it",
    "mxfp4": "vLLM's CPU build has no mxfp4 kernel for dense layers",
}
_CPU_YES = {
    "fp8": "a checkpoint, or online (fp8_per_channel)",
    "int8": "a checkpoint, or made at first use; online (int8_per_channel_weight_only) for mixture-of-experts models",
    "awq": "a checkpoint; x86 needs AVX-512",
    "gptq": "a checkpoint; x86 needs AVX-512",
    "fp16": "computed in bf16, unless -x dtype=float16",
    "fp32": "computed in bf16, unless -x dtype=float32",
}
# vLLM's build for CPUs without AVX-512 omits csrc/cpu/cpu_wna16.cpp: such a model loads, but every request fails.
_AVX512 = {"awq", "gptq"}
_CUDA_YES = {
    "fp8": "from compute capability 8.9; older GPUs, from 7.5, through Marlin with 16-bit activations",
    "fp8_per_tensor": "from compute capability 8.9; older GPUs, from 7.5, through Marlin with 16-bit activations",
    "fp8_per_block": "from compute capability 8.9",
    "int8": "from compute capability 7.5",
    "awq": "from compute capability 7.5",
    "gptq": "from compute capability 7.5",
    "mxfp8": "from compute capability 10.0; older ones through Marlin",
    "mxfp4": "from compute capability 8.0",
    "bf16": "from compute capability 8.0",
}


def support(tag: str, engine: EngineName, hardware: Hardware, *, avx512: bool | None = None) -> Support:
    """Look up one cell.

    Args:
        tag: a canonical tag.
        engine: the engine.
        hardware: where the engine computes.
        avx512: whether the CPU has AVX-512 or doesn't need it (not x86); None checks this machine.
    """
    own = tags.TAGS[tag].engine
    if own != engine:
        return Support(tag, engine, hardware, ok=False, why=_NO_GGUF if engine == "vllm" else _NO_FOLDER)
    if engine == "llamacpp":
        if tag in _TERNARY and hardware == "CUDA":
            return Support(tag, engine, hardware, ok=False, why="ggml has no CUDA kernel for it")
        return Support(tag, engine, hardware, ok=True)
    if hardware == "Metal":
        return Support(tag, engine, hardware, ok=False, why=_NO_VLLM_METAL)
    if hardware == "CPU" and tag in _CPU_NO:
        return Support(tag, engine, hardware, ok=False, why=_CPU_NO[tag])
    if hardware == "CPU" and tag in _AVX512 and not (has_avx512() if avx512 is None else avx512):
        why = "vLLM's CPU build has no 4-bit kernel for x86 CPUs without AVX-512, such as this one"
        return Support(tag, engine, hardware, ok=False, why=why)
    return Support(tag, engine, hardware, ok=True, why=(_CPU_YES if hardware == "CPU" else _CUDA_YES).get(tag, ""))


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
