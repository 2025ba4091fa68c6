"""Step 5 of a load: all decisions and checks before an engine starts, and the resulting load plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llmlab.engines.base import Capabilities, Draft, LoadPlan, Reserved
from llmlab.engines.registry import ENGINES, computes_on, declared, engine_class, on_gpu
from llmlab.engines.registry import capabilities as capabilities_of
from llmlab.engines.rope import rope_of
from llmlab.errors import BadInputError, UnsupportedError, unknown
from llmlab.files import fit, offload, sizes, tags
from llmlab.files.headers import Header
from llmlab.hub.spec import parse
from llmlab.loading import parallel as splitting
from llmlab.loading.choice import choose, choose_engine
from llmlab.loading.retrieval import fetch, resolve
from llmlab.machine import hardware, memory
from llmlab.machine.memory import Device
from llmlab.quant import compatibility
from llmlab.types import EngineName
from llmlab.types.parallel import Parallel
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.files.source import Source
    from llmlab.runlog import Correction

# Defaults: a useful context length whose KV cache fits on a laptop.
DEFAULT_CONTEXT = 8192
SHORTEST_CONTEXT = 2048
DEFAULT_CONCURRENCY = 8
# Speculative decoding: the name of n-gram lookup, and the number of tokens drafted per step.
NGRAM = "ngram"
MOST_DRAFTED = 32
# The option for adapter slots, of an engine that has them; for others `lora` needs no slots.
_SLOTS = "max_loras"
# Default KV cache: at most this share of the free memory.
KV_SHARE = 0.25
# Above these bytes, and this many per parameter, the default is half the sequences: with 8 times 8,192 tokens, the
# 97 MB of SmolLM2 135M had a KV cache of 1.5 GB.
KV_SMALLEST = 512 * 2**20
KV_PER_PARAMETER = 4


@dataclass(frozen=True, slots=True)
class Planned:
    """A load that passed every check. `reason`: why this engine was chosen, in one line."""

    engine: EngineName
    reason: str
    plan: LoadPlan
    estimate: fit.Estimate | None


def make_plan(
    spec: str,
    *,
    engine: str,
    quant: str | None,
    ctx: int | None,
    gpu_layers: int | None,
    parallel: Parallel,
    max_concurrency: int | None,
    force: bool,
    extra: Mapping[str, Any],
    progress: Progress,
    draft: str | None = None,
    from_: str | None = None,
    lora: int | None = None,
    corrections: Callable[[str, str], Correction | None] | None = None,
) -> Planned:
    """Choose the engine, get the files, check them and the memory. Arguments and errors as `Lab.load`.

    Args:
        corrections: what earlier loads of an engine on a device say about its estimates (`Ledger.correction`).
    """
    _check_numbers(ctx, gpu_layers, max_concurrency, lora)
    splitting.check_copies(parallel)
    parsed = parse(spec, quant)
    chosen, reason, found = choose_engine(parsed, engine, from_)
    capabilities = engine_class(chosen).capabilities
    options = check_options(chosen, capabilities, extra)
    if lora is not None and _SLOTS in capabilities.extra:
        options[_SLOTS] = lora
    if gpu_layers is not None and not capabilities.gpu_layers:
        owners = " and ".join(name for name in ENGINES if declared(name).capabilities.gpu_layers)
        split = "; split it with --tp N" if capabilities.tensor_parallel else ""
        raise UnsupportedError(f"gpu_layers is {owners}'s.", f"{chosen} loads the complete model onto the GPU{split}.")
    splitting.check_engine(chosen, capabilities, parallel)
    splitting.check_devices(parallel, hardware.nvidia_gpus() if on_gpu(chosen) else 0, here=True)
    if quant is not None:
        _check_hardware(chosen, quant)
    source = fetch(choose(parsed, found, engine=chosen, from_=from_), progress)
    compatibility.check(source.quant, chosen, computes_on(chosen))
    header = source.header
    if source.way:
        reason = f"{reason}; {source.way}"
    if not _can_load(capabilities, source, header):
        others = ", ".join(capabilities.quants)
        raise UnsupportedError(f"{chosen} doesn't load {source.quant} here.", f"It loads {others}.")
    if draft is None and "draft_tokens" in options:
        raise BadInputError(
            "-x draft_tokens sets how many tokens --draft drafts, but --draft is missing.", "--draft ngram"
        )
    drafting = _settle_draft(draft, chosen, header, options, progress) if draft is not None else None
    asked = engine_class(chosen).sizes(options, source.path)
    splitting.check_shape(header, parallel)
    asked = replace(asked, parallel=parallel)
    if drafting is not None:
        drafts = drafting.source.header if drafting.source is not None else None
        asked = replace(asked, drafted=drafting.tokens, draft=drafts)
    device = device_of(chosen, parallel, options.get("gpu", options.get("main_gpu")))
    reserved = engine_class(chosen).reserves(header, options, device)
    scaled = rope_of(options, header.context_length or 0)
    if scaled is not None:
        header = replace(header, context_length=scaled.context_length)
    size = settle_size(header, chosen, ctx, max_concurrency, force=force, device=device, reserved=reserved, asked=asked)
    estimate = estimate_load(
        header, chosen, size.length, size.concurrency, device, kv_tokens=size.kv_tokens, reserved=reserved,
        asked=asked,
    )  # fmt: skip
    learned = corrections(chosen, device.name) if corrections is not None else None
    if learned is not None:
        estimate = fit.correct(estimate, learned.factor, learned.n)
    if capabilities.gpu_layers and on_gpu(chosen):
        estimate, gpu_layers, note = offload.settle(header, estimate, device, gpu_layers, force=force)
        reason = f"{reason}; {note}" if note else reason
    if not force:
        fit.check(estimate)
    shares = capabilities.paged_on_gpu and on_gpu(chosen)
    plan = LoadPlan(
        source=source,
        context_length=size.length,
        gpu_layers=gpu_layers,
        parallel=parallel,
        max_concurrency=size.concurrency,
        extra=options,
        draft=drafting,
        adapter_slots=reserved.adapter_slots,
        gpu_share=gpu_share(estimate, device) if shares else None,
    )
    return Planned(chosen, reason, plan, estimate)


def _settle_draft(draft: str, engine: EngineName, header: Header, options: dict[str, Any], progress: Progress) -> Draft:
    """Resolve the draft model or method; `draft_tokens` in the options is the number of tokens per step.

    Raises:
        BadInputError: the draft model has another vocabulary, or the number of tokens is out of range.
    """
    tokens = options.pop("draft_tokens", None)
    if tokens is not None and not 1 <= tokens <= MOST_DRAFTED:
        raise BadInputError(f"-x draft_tokens must be an integer from 1 to {MOST_DRAFTED}, got {tokens}.")
    capabilities = capabilities_of(engine)
    if draft == NGRAM:
        return Draft(NGRAM, None, tokens or capabilities.ngram_tokens)
    source = resolve(draft, engine=engine, quant=None, progress=progress)
    found = source.header
    longer = abs(header.vocab_size - found.vocab_size) if header.vocab_size and found.vocab_size else 0
    if longer > capabilities.draft_padding:
        raise BadInputError(
            f"{source.name} can't draft for {header.name}: its vocabulary has {found.vocab_size:,} tokens, and "
            f"{header.name}'s has {header.vocab_size:,}.",
            "Use a draft model with the same tokenizer, such as a smaller one of the same family, or --draft ngram.",
        )
    return Draft(source.name, source, tokens or capabilities.draft_tokens)


def _check_hardware(engine: EngineName, quant: str) -> None:
    """Refuse a tag that the engine doesn't run on this machine, before anything is downloaded or made."""
    tag = tags.canonical(quant, engine if tags.known(quant, engine) else None)
    compatibility.check(tag.name, engine, computes_on(engine))


def _can_load(capabilities: Capabilities, source: Source, header: Header) -> bool:
    if source.format not in capabilities.formats:
        return False
    # A file without a known tag in its header is tried: the engine supports more types than there are tags.
    return source.quant in capabilities.quants or source.quant == "mixed" or source.quant != header.quant


def _check_numbers(ctx: int | None, gpu_layers: int | None, max_concurrency: int | None, lora: int | None) -> None:
    for name, value, low in (
        ("ctx", ctx, 16),
        ("gpu_layers", gpu_layers, -1),
        ("max_concurrency", max_concurrency, 1),
        ("lora", lora, 0),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise BadInputError(f"{name} must be an integer, {low} or more, got {value!r}.")


def check_options(engine: EngineName, capabilities: Capabilities, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Validate engine options by name and type.

    Raises:
        UnknownNameError: the engine has no such option.
        BadInputError: a value has the wrong type.
    """
    options: dict[str, Any] = {}
    for key, value in extra.items():
        if key not in capabilities.extra:
            raise unknown(f"{engine} option", key, capabilities.extra)
        kind = capabilities.extra[key][0]
        options[key] = _typed(key, value, kind)
    return options


def _typed(key: str, value: Any, kind: type) -> Any:
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    text = str(value).strip()
    if kind is bool:
        known = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        if text.lower() in known:
            return known[text.lower()]
        raise BadInputError(f"-x {key} takes true or false, got {value!r}.")
    try:
        return kind(text)
    except ValueError:
        raise BadInputError(f"-x {key} takes a value of type {kind.__name__}, got {value!r}.") from None


class Size(NamedTuple):
    """Tokens per sequence, sequences at once, and tokens of the KV cache; None for a full context per sequence."""

    length: int
    concurrency: int
    kv_tokens: int | None = None


def settle_size(
    header: Header,
    engine: EngineName,
    ctx: int | None,
    max_concurrency: int | None,
    *,
    force: bool = False,
    device: Device | None = None,
    reserved: Reserved | None = None,
    asked: fit.Sizes | None = None,
) -> Size:
    """Context length and concurrency: as requested, else limited to the model's size and a share of the free memory.

    Raises:
        BadInputError: a context longer than the trained one, without `force`.
    """
    reserved = reserved or Reserved()
    trained = header.context_length
    if ctx is not None and trained and ctx > trained and not force:
        raise BadInputError(
            f"A context of {ctx} tokens was requested, but {header.name} was trained for {trained}.",
            f"Use --ctx {trained} or less, or --force to try.",
        )
    length = ctx or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    asked = asked or fit.Sizes()
    where = device or device_of(engine, asked.parallel)
    if where.name != "CPU" and capabilities_of(engine).paged_on_gpu:
        over = fit.overhead_bytes(header, engine, 0, sizes=asked, on_gpu=True) + reserved.adapter_bytes
        shortest = SHORTEST_CONTEXT if ctx is None else None
        return Size(
            *sizes.pool(
                header, where, overhead=over, length=length, concurrency=max_concurrency, shortest=shortest,
                budget=reserved.kv_bytes, asked=asked,
            )
        )  # fmt: skip
    tokens = None
    if reserved.kv_bytes is not None:
        each = fit.kv_bytes(header, 1024, asked.cache_k, asked.cache_v)
        tokens = 1024 * reserved.kv_bytes // max(each, 1)
    concurrency = max_concurrency or DEFAULT_CONCURRENCY
    if max_concurrency is None and tokens is None and asked.kv_tokens is None:
        cache = fit.kv_bytes(header, length, asked.cache_k, asked.cache_v) * concurrency
        if cache > max(KV_SMALLEST, KV_PER_PARAMETER * header.parameters):
            concurrency //= 2
    while not _modest(estimate_load(header, engine, length, concurrency, where, kv_tokens=tokens, asked=asked)):
        if max_concurrency is None and concurrency > 1:
            concurrency //= 2
        elif ctx is None and length > SHORTEST_CONTEXT:
            length = max(length // 2, SHORTEST_CONTEXT)
        else:
            break
    return Size(length, concurrency, tokens)


def estimate_load(
    header: Header,
    engine: EngineName,
    context: int,
    concurrency: int,
    device: Device | None = None,
    *,
    kv_tokens: int | None = None,
    reserved: Reserved | None = None,
    asked: fit.Sizes | None = None,
) -> fit.Estimate:
    """The memory that a load would need, on a device, or where the installed build runs on this machine."""
    return fit.estimate(
        header,
        engine=engine,
        context_length=context,
        max_concurrency=concurrency,
        kv_tokens=kv_tokens,
        sizes=asked,
        device=device or device_of(engine, asked.parallel if asked is not None else Parallel()),
        reserved=reserved.adapter_bytes if reserved is not None else 0,
    )


def device_of(engine: EngineName, parallel: Parallel | None = None, index: int | None = None) -> Device:
    """Where an engine's installed build loads a model on this machine.

    Args:
        engine: the engine.
        parallel: how it is spread, for an engine that is told.
        index: the one GPU to use; None: the first ones.

    Raises:
        BadInputError: there is no such GPU.
    """
    # A CPU build uses RAM even if the machine has a GPU.
    gpu = None if on_gpu(engine) else False
    parallel = parallel or Parallel()
    if index is not None:
        there = hardware.nvidia_gpus() if gpu is None else 0
        if not 0 <= index < there:
            raise BadInputError(
                f"-x gpu={index}: {engine} can use {there} GPU{'s' * (there != 1)} here.",
                f"Use 0 to {there - 1}." if there else "Leave it out.",
            )
        if parallel.gpus > 1:
            split = parallel.options.split()[0]
            raise BadInputError(f"-x gpu=N uses one GPU, and {split} splits the model over several.", "Leave one out.")
    even = capabilities_of(engine).tensor_parallel
    # The other machines' memory can't be read: they count as this one's.
    count = parallel.per_copy // parallel.nodes if even else max(hardware.nvidia_gpus(), 1)
    found = memory.device(gpu=gpu, count=count, index=index, even=even)
    return memory.combine([found] * parallel.nodes, even=even) if parallel.nodes > 1 else found


def gpu_share(estimate: fit.Estimate, device: Device) -> float:
    """The share of a GPU's memory that the estimate gives a load: at most what is free, less the headroom.

    vLLM takes its CUDA context on top of the share. So the share leaves it out, down to a KV cache of one context.
    """
    one = estimate.kv_cache * estimate.context_length // max(estimate.kv_tokens, 1)
    context = min(device.count * fit.CUDA_CONTEXT, max(estimate.kv_cache - one, 0))
    return round(max(min(estimate.total - context, device.free * (1 - fit.HEADROOM)) / device.total, 0.01), 4)


def _modest(estimate: fit.Estimate) -> bool:
    return estimate.fits and estimate.kv_cache <= estimate.free * KV_SHARE
