"""What each engine could load of a model on a machine: the form, whether it fits, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmlab.advice.machine import Machine
from llmlab.advice.result import Use
from llmlab.engines.registry import INSTALL, capabilities, check_architecture
from llmlab.errors import LlmLabError, UnsupportedError
from llmlab.files import fit, tags
from llmlab.files.fit import Estimate
from llmlab.files.headers import Header, read_header
from llmlab.hub.catalogue import Shape
from llmlab.hub.form import Form
from llmlab.hub.spec import Spec
from llmlab.loading import storage
from llmlab.loading.choice import choose, first, none_fits
from llmlab.loading.forms import find
from llmlab.loading.parallel import divides
from llmlab.loading.plan import estimate_load, settle_size
from llmlab.quant import compatibility
from llmlab.render import units
from llmlab.types import FORMATS, EngineName
from llmlab.types.parallel import Parallel


@dataclass(frozen=True, slots=True)
class Option:
    """How one engine could serve the workload.

    Attributes:
        form: the form it would load.
        estimate: its memory estimate, at the resulting context length and concurrency.
        parallel: how it is split over GPUs and machines.
        explicit: whether the concurrency must be passed to the load, since it exceeds a load's default.
        default: the form that a load chooses without a quant; `form` differs if that doesn't fit.
        why_not: the estimate of the default form, if it doesn't fit.
        out: why the engine can't do it; "" if it can.
        hint: a suggested fix for that.
    """

    engine: EngineName
    form: Form | None = None
    estimate: Estimate | None = None
    parallel: Parallel = field(default_factory=Parallel)
    explicit: bool = False
    default: Form | None = None
    why_not: Estimate | None = None
    out: str = ""
    hint: str = ""


def find_header(parsed: Spec, found: Sequence[Form]) -> Header | None:
    """A model's header, from local files or from the hub; None if neither is available.

    Layers and key-value heads are the same in all forms, so any form's header will do.
    """
    if parsed.path is not None:
        return read_header(parsed.path)
    ready = [form for form in found if form.action == "ready"]
    # A form that would have to be made first isn't.
    first = {form.engine: form for form in reversed(found) if form.repo is not None}
    for form in (*ready, *first.values()):
        try:
            return storage.show(parsed.text, quant=form.quant, engine=form.engine)
        except LlmLabError:
            continue  # gated, or no network
    return None


def catalogue_header(parsed: Spec) -> Header | None:
    """A header with only the catalogue's figures. Without a shape its KV cache counts as zero."""
    entry = parsed.entry
    if entry is None or not entry.parameters:
        return None
    shape = entry.shape or Shape(0, 0, 0, 0, 0, 0)
    return Header(
        path=Path(entry.name), format="safetensors", files=(), name=entry.name, architecture="",
        parameters=entry.parameters, context_length=entry.context_length or 0, layers=shape.layers,
        hidden=shape.hidden, heads=shape.heads, kv_heads=shape.kv_heads, head_dim=shape.head_dim,
        kv_values=2 * shape.layers * shape.kv_heads * shape.head_dim, vocab_size=shape.vocabulary, quant="",
        tensors=(), weight_bytes=0, chat_template=None,
        licence=entry.licence, tokenizer="", tied=False, metadata={},
    )  # fmt: skip


def option(
    engine: EngineName, use: Use, machine: Machine, parsed: Spec, found: Sequence[Form], header: Header | None
) -> Option:
    """How one engine could serve the workload, or why it can't.

    Args:
        engine: the engine.
        use: the workload.
        machine: the machine.
        parsed: the model's spec.
        found: the model's available forms.
        header: its header, or the catalogue's figures; None if no sizes are known.
    """
    if engine not in machine.engines:
        systems = capabilities(engine).systems
        if machine.system not in systems:
            where = " and ".join(name.capitalize() for name in sorted(systems))
            return Option(engine, out=f"llmlab supports {engine} on {where} only", hint=f"Use {where}.")
        return Option(engine, out=f"{engine} isn't installed", hint=f"Install it: {INSTALL[engine]}.")
    try:
        default = first(found, engine, use.quant)
        if default is None:
            raise none_fits(use.model, found, engine, use.quant)
    except UnsupportedError as error:
        return _refused(engine, use, machine, parsed, error)
    own = [form for form in found if form.engine == engine and (use.quant is None or form.quant == default.quant)]
    runs = [form for form in own if _runs(form.quant, engine, machine)]
    if not runs:
        try:
            compatibility.check(default.quant, engine, machine.engines[engine], avx512=_avx512(machine))
        except UnsupportedError as error:
            return Option(engine, out=error.message.rstrip("."), hint=error.hint)
    unknown = _unknown_architecture(engine, header, machine)
    if unknown is not None:
        return Option(engine, out=unknown.message.rstrip("."), hint=unknown.hint)
    return _fitting(engine, use, machine, runs, header)


def _avx512(machine: Machine) -> bool | None:
    """Whether the CPU has AVX-512: checked on this machine, assumed for a hypothetical one."""
    return True if machine.assumed else None


def _runs(quant: str, engine: EngineName, machine: Machine) -> bool:
    return (
        quant not in tags.TAGS
        or compatibility.support(quant, engine, machine.engines[engine], avx512=_avx512(machine)).ok
    )


def _refused(engine: EngineName, use: Use, machine: Machine, parsed: Spec, error: UnsupportedError) -> Option:
    """An engine without a loadable form, with the error that a load would raise."""
    out, hint = error.message, error.hint
    if use.quant is not None:
        near = compatibility.nearest(
            tags.canonical(use.quant).name, engine, machine.engines[engine], avx512=_avx512(machine)
        )
        hint = f"Nearest in {engine}: --quant {near}." if near else hint
    elif parsed.path is not None:
        try:
            # No form exists, so this raises before anything is made.
            choose(parsed, find(parsed, engine=engine), engine=engine)
        except LlmLabError as refusal:
            out, hint = refusal.message, refusal.hint
    return Option(engine, out=out.rstrip("."), hint=hint)


def _unknown_architecture(engine: EngineName, header: Header | None, machine: Machine) -> UnsupportedError | None:
    if header is None or not header.architecture or header.format != FORMATS[engine] or machine.assumed:
        return None
    try:
        check_architecture(header, engine)
    except UnsupportedError as error:
        return error
    return None


def _fitting(engine: EngineName, use: Use, machine: Machine, runs: list[Form], header: Header | None) -> Option:
    """The default form if it fits, on more GPUs if necessary; else the largest other form that fits."""
    default = runs[0]
    if header is None:
        return Option(engine, form=default, default=default)
    smaller = sorted((f for f in runs[1:] if _bits(f) < _bits(default)), key=_bits, reverse=True)
    tries = [(default, split) for split in _splits(engine, machine, header)]
    tries += [(form, Parallel()) for form in smaller]
    least: Estimate | None = None
    why_not: Estimate | None = None
    for form, split in tries:
        estimate, explicit = _settled(sized(header, form), engine, machine, use, split)
        if estimate.fits:
            return Option(engine, form, estimate, split, explicit, default, why_not)
        why_not = why_not or estimate
        if least is None or estimate.total < least.total:
            least = estimate
    assert least is not None
    ways = [way for way in least.suggestions if not way.startswith("--quant")]
    ways += _split(engine, machine, sized(header, tries[-1][0]), least)
    hint = f"In {engine}, try {'; or '.join(ways)}." if ways else ""
    hint = hint or f"{engine} needs about {units.size(least.total)} of free memory, or a smaller model (%llm models)."
    return Option(
        engine, default=default, why_not=why_not, out=f"does not fit: at least {describe(least, header)}", hint=hint
    )


def _splits(engine: EngineName, machine: Machine, header: Header) -> list[Parallel]:
    """One GPU, more on one machine, then all GPUs of several machines, each with a part of the layers."""
    if not capabilities(engine).tensor_parallel or machine.engines[engine] != "CUDA":
        return [Parallel()]
    most = max(len(machine.gpus), 1)
    found = [count for count in (1, 2, 4, 8) if count <= most and divides(header, count)]
    splits = [Parallel(tensor=count) for count in found]
    splits += [
        Parallel(tensor=found[-1], pipeline=nodes * (most // found[-1]), nodes=nodes, executor="ray")
        for nodes in (2, 4, 8, 16, 32)
        if nodes <= machine.nodes
    ]
    return [split for split in splits if not header.layers or split.pipeline <= header.layers]


def _split(engine: EngineName, machine: Machine, header: Header, least: Estimate) -> list[str]:
    """A suggestion to keep some layers in RAM; a load's estimate counts only the GPU, so it must be forced."""
    splits = capabilities(engine).gpu_layers and machine.engines[engine] == "CUDA"
    if not splits or not header.layers or machine.ram.free < least.total:
        return []
    room = 0.9 * machine.device(engine).free - least.kv_cache - least.overhead
    layers = int(header.layers * room / header.weight_bytes)
    return [f"layers in RAM, which is slow: --quant {header.quant} --gpu-layers {layers} --force"] if layers > 0 else []


def describe(estimate: Estimate, header: Header) -> str:
    """An estimate in words; without the KV cache if there is no header."""
    if header.kv_values:
        return str(estimate)
    total, free = units.size(estimate.total), units.size(estimate.free)
    return f"{total} without the KV cache (unknown without a header), {free} free"


def _settled(header: Header, engine: EngineName, machine: Machine, use: Use, split: Parallel) -> tuple[Estimate, bool]:
    """The estimate at the workload's concurrency, and whether that concurrency must be passed to the load."""
    alone = not capabilities(engine).tensor_parallel
    device = machine.device(engine, len(machine.gpus) if alone else split.per_copy)
    asked = fit.Sizes(parallel=split)
    size = settle_size(header, engine, None, None, device=device, asked=asked)
    explicit = use.concurrency > size.concurrency
    if explicit:
        size = settle_size(header, engine, None, use.concurrency, device=device, asked=asked)
    found = estimate_load(header, engine, size.length, size.concurrency, device, kv_tokens=size.kv_tokens, asked=asked)
    return found, explicit


def sized(header: Header, form: Form) -> Header:
    """The header of another form, with its weight size estimated from the tag's mean bits."""
    if form.quant == header.quant or form.quant not in tags.TAGS:
        return header
    return replace(header, quant=form.quant, weight_bytes=int(header.parameters * tags.TAGS[form.quant].bits / 8))


def _bits(form: Form) -> float:
    return tags.TAGS[form.quant].bits if form.quant in tags.TAGS else 16.0
