"""What each engine could load of a model on a machine: the form, whether it fits, or why it can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmlab.advice.machine import Machine
from llmlab.advice.result import Use
from llmlab.engines.registry import INSTALL
from llmlab.errors import LlmLabError, UnsupportedError
from llmlab.files import architectures, tags
from llmlab.files.fit import Estimate
from llmlab.files.headers import Header, read_header
from llmlab.hub.form import Form
from llmlab.hub.spec import Spec
from llmlab.loading import storage
from llmlab.loading.choice import choose, first, none_fits
from llmlab.loading.forms import find
from llmlab.loading.plan import estimate_load, settle_size
from llmlab.quant import support
from llmlab.types import EngineName


@dataclass(frozen=True, slots=True)
class Option:
    """One engine's way to serve a use.

    Attributes:
        form: what it would load.
        estimate: what that takes, at the settled context and concurrency.
        tensor_parallel: GPUs to split it over.
        explicit: the concurrency must be said at the load, since it isn't what a load settles by itself.
        default: the form that a load takes when no quant is said; another one stands in `form` where that doesn't fit.
        why_not: the estimate of the default form, where it doesn't fit.
        out: why the engine can't do it; "" when it can.
        hint: the way out of that.
    """

    engine: EngineName
    form: Form | None = None
    estimate: Estimate | None = None
    tensor_parallel: int = 1
    explicit: bool = False
    default: Form | None = None
    why_not: Estimate | None = None
    out: str = ""
    hint: str = ""


def find_header(parsed: Spec, found: Sequence[Form]) -> Header | None:
    """A model's header: from its files where they lie here, else read from the hub; None where neither can be had.

    Layers and key-value heads are the same in all forms, so any form's header does.
    """
    if parsed.path is not None:
        return read_header(parsed.path)
    ready = [form for form in found if form.action == "ready"]
    first = {form.engine: form for form in reversed(found)}
    for form in (*ready, *first.values()):
        try:
            return storage.show(parsed.text, quant=form.quant, engine=form.engine)
        except LlmLabError:
            continue  # gated, or no network
    return None


def catalogue_header(parsed: Spec) -> Header | None:
    """What the catalogue alone says: parameters and context. Its KV cache counts as nothing."""
    entry = parsed.entry
    if entry is None or not entry.parameters:
        return None
    return Header(
        path=Path(entry.name), format="safetensors", files=(), name=entry.name, architecture="",
        parameters=entry.parameters, context_length=entry.context_length or 0, layers=0, hidden=0, heads=0, kv_heads=0,
        head_dim=0, kv_values=0, vocab_size=0, quant="", tensors=(), weight_bytes=0, chat_template=None,
        licence=entry.licence, tokenizer="", tied=False, metadata={},
    )  # fmt: skip


def option(
    engine: EngineName, use: Use, machine: Machine, parsed: Spec, found: Sequence[Form], header: Header | None
) -> Option:
    """What an engine could do.

    Args:
        engine: which.
        use: what it's for.
        machine: where.
        parsed: the model's spec.
        found: the forms that the model can be had in.
        header: its header (the catalogue's figures where there is no other); None: no sizes are known.
    """
    if engine not in machine.engines:
        if machine.system != "linux" and engine == "vllm":
            return Option(engine, out="vllm has no build for this system; llmlab runs it on Linux", hint="Use Linux.")
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
            support.check(default.quant, engine, machine.engines[engine])
        except UnsupportedError as error:
            return Option(engine, out=error.message.rstrip("."), hint=error.hint)
    unknown = _unknown_architecture(engine, header, machine)
    if unknown is not None:
        return Option(engine, out=unknown.message.rstrip("."), hint=unknown.hint)
    return _fitting(engine, use, machine, runs, header)


def _runs(quant: str, engine: EngineName, machine: Machine) -> bool:
    return quant not in tags.TAGS or support.support(quant, engine, machine.engines[engine]).ok


def _refused(engine: EngineName, use: Use, machine: Machine, parsed: Spec, error: UnsupportedError) -> Option:
    """An engine for which there is no form, in the words that a load would say it in."""
    out, hint = error.message, error.hint
    if use.quant is not None:
        near = support.nearest(tags.canonical(use.quant).name, engine, machine.engines[engine])
        hint = f"Nearest in {engine}: --quant {near}." if near else hint
    elif parsed.path is not None:
        try:
            choose(parsed, find(parsed, engine=engine), engine=engine)
        except LlmLabError as refusal:
            out, hint = refusal.message, refusal.hint
    return Option(engine, out=out.rstrip("."), hint=hint)


def _unknown_architecture(engine: EngineName, header: Header | None, machine: Machine) -> UnsupportedError | None:
    own = {"gguf": "llamacpp", "safetensors": "vllm"}
    if header is None or not header.architecture or own[header.format] != engine or machine.assumed:
        return None
    try:
        architectures.check(header, engine)
    except UnsupportedError as error:
        return error
    return None


def _fitting(engine: EngineName, use: Use, machine: Machine, runs: list[Form], header: Header | None) -> Option:
    """The form that a load takes, if it fits, on more GPUs if need be; else the largest other that fits."""
    default = runs[0]
    if header is None:
        return Option(engine, form=default, default=default)
    most = len(machine.gpus) if engine == "vllm" and machine.engines[engine] == "CUDA" else 1
    splits = [count for count in (1, 2, 4, 8) if count <= max(most, 1)]
    smaller = sorted((f for f in runs[1:] if _bits(f) < _bits(default)), key=_bits, reverse=True)
    tries = [(default, count) for count in splits] + [(form, 1) for form in smaller]
    least: Estimate | None = None
    why_not: Estimate | None = None
    for form, count in tries:
        estimate, explicit = _settled(sized(header, form), engine, machine, use, count)
        if estimate.fits:
            return Option(engine, form, estimate, count, explicit, default, why_not)
        why_not = why_not or estimate
        if least is None or estimate.total < least.total:
            least = estimate
    assert least is not None
    needed = least.total / 2**30
    ways = [way for way in least.suggestions if not way.startswith("--quant")]
    ways += _split(engine, machine, sized(header, tries[-1][0]), least)
    hint = f"In {engine} it would take {'; or '.join(ways)}." if ways else ""
    hint = hint or f"In {engine} it would take about {needed:.1f} GiB free, or a smaller model (%llm models)."
    return Option(
        engine, default=default, why_not=why_not, out=f"does not fit: at least {said(least, header)}", hint=hint
    )


def _split(engine: EngineName, machine: Machine, header: Header, least: Estimate) -> list[str]:
    """Some layers in RAM, which llamacpp can; the estimate of a load counts the GPU alone, so it has to be forced."""
    if engine != "llamacpp" or machine.engines[engine] != "CUDA" or not header.layers or machine.ram.free < least.total:
        return []
    room = 0.9 * machine.device(engine).free - least.kv_cache - least.overhead
    layers = int(header.layers * room / header.weight_bytes)
    return [f"layers in RAM, which is slow: --quant {header.quant} --gpu-layers {layers} --force"] if layers > 0 else []


def said(estimate: Estimate, header: Header) -> str:
    """An estimate in words; without a KV cache where the header that it needs couldn't be read."""
    if header.kv_values:
        return str(estimate)
    gib = estimate.total / 2**30
    return f"{gib:.1f} GiB without the KV cache (no header to tell it from), {estimate.free / 2**30:.1f} GiB free"


def _settled(header: Header, engine: EngineName, machine: Machine, use: Use, count: int) -> tuple[Estimate, bool]:
    """What a load at the use's concurrency would take, and whether that concurrency has to be said."""
    device = machine.device(engine, count)
    length, concurrency = settle_size(header, engine, None, None, count, device=device)
    explicit = use.concurrency > concurrency
    if explicit:
        length, concurrency = settle_size(header, engine, None, use.concurrency, count, device=device)
    return estimate_load(header, engine, length, concurrency, count, device), explicit


def sized(header: Header, form: Form) -> Header:
    """The header as it would be in another form: its weights by the tag's mean bits."""
    if form.quant == header.quant or form.quant not in tags.TAGS:
        return header
    return replace(header, quant=form.quant, weight_bytes=int(header.parameters * tags.TAGS[form.quant].bits / 8))


def _bits(form: Form) -> float:
    return tags.TAGS[form.quant].bits if form.quant in tags.TAGS else 16.0
