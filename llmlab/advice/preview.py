"""The plan of a load, without the load: on this machine or a described one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmlab.advice.candidates import catalogue_header, find_header, sized
from llmlab.advice.machine import Machine, described
from llmlab.engines.base import LoadPlan
from llmlab.engines.registry import ENGINES, capabilities, check_name, declared
from llmlab.errors import BadInputError, DoesNotFitError, UnsupportedError
from llmlab.files import offload
from llmlab.files.fit import Estimate
from llmlab.files.headers import Header
from llmlab.files.source import Source
from llmlab.hub.form import Form
from llmlab.hub.spec import parse
from llmlab.loading import parallel as splitting
from llmlab.loading.choice import first, none_fits, pick_engine, with_quant
from llmlab.loading.forms import find
from llmlab.loading.plan import check_options, estimate_load, gpu_share, settle_size
from llmlab.options import EngineOption
from llmlab.quant import compatibility
from llmlab.types import EngineName
from llmlab.types.parallel import Parallel


@dataclass(frozen=True)
class DryRun:
    """What a load would do. Displayed as a table in a notebook.

    Attributes:
        model: what was asked for.
        machine: the machine that it is for.
        engine: the engine that would load it.
        quant: the quant that it would load.
        parallel: how it would be spread over GPUs and machines.
        context_length: most tokens per sequence.
        max_concurrency: most sequences decoded at once, in each copy.
        estimate: the memory of one copy.
        complete: whether the estimate includes the KV cache.
        arguments: the engine's arguments.
        processes: the processes that would start, by what they are: {"core": 1, "worker": 8}.
        command: the `%llm load` line.
        server: the line that starts a server instead; "" if the engine's command isn't known.
        problem: why the load would be refused, with the suggested fix; "" if it wouldn't.
        note: what a load would say about its layers, or "".

    Example:
        >>> plan = llmlab.dry_run("nano", engine="vllm", hardware="gpu:24x2", tp=2)
        >>> plan.fits, plan.arguments["tensor_parallel_size"], plan.processes
        (True, 2, {'core': 1, 'worker': 2})
    """

    model: str
    machine: Machine
    engine: EngineName
    quant: str
    parallel: Parallel
    context_length: int
    max_concurrency: int
    estimate: Estimate
    complete: bool
    arguments: Mapping[str, Any]
    processes: Mapping[str, int]
    command: str
    server: str = ""
    problem: str = ""
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether the load would not be refused."""
        return not self.problem

    @property
    def per_device(self) -> dict[str, int]:
        """Bytes on each GPU of a copy (in RAM without GPUs): weights, KV cache, overhead, total, free."""
        found = self.estimate
        count = self.parallel.per_copy if found.device != "CPU" else 1
        parts = {"weights": found.weights, "KV cache": found.kv_cache, "overhead": found.overhead}
        return {name: size // count for name, size in (parts | {"total": found.total, "free": found.free}).items()}

    def __repr__(self) -> str:
        from llmlab.advice.view import DryRunView

        return DryRunView(self).text()

    def _repr_html_(self) -> str:
        from llmlab.advice.view import DryRunView

        return DryRunView(self)._repr_html_()


def dry_run(
    model: str,
    *,
    engine: str = "auto",
    quant: str | None = None,
    ctx: int | None = None,
    gpu_layers: int | None = None,
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    nodes: int = 1,
    executor: str | None = None,
    max_concurrency: int | None = None,
    lora: int | None = None,
    extra: Mapping[str, EngineOption] | None = None,
    hardware: Machine | str | None = None,
) -> DryRun:
    """Plan a load without loading or downloading anything.

    Args:
        model: a catalogue name, a path, or `hf:org/repo`.
        engine: vllm, llamacpp, or auto.
        quant: quant tag; None: the model's default for the engine.
        ctx: context length in tokens; None: the trained one, or what fits.
        gpu_layers: layers on the GPU (llamacpp).
        tp, pp: the GPUs of one copy: each layer is split over `tp`, the layers over `pp` groups of them (vllm).
        dp: copies of the model behind one server (vllm).
        nodes: machines.
        executor: what starts vllm's processes: mp or ray.
        max_concurrency: most sequences decoded at once.
        lora: adapter slots (vllm).
        extra: engine options by name.
        hardware: another machine: `cpu:16`, `gpu:24`, `gpu:80x8`, `mac:64` (free memory in GB), or a `Machine`.

    Returns:
        The plan; one that a load would refuse has the reason in `problem`.

    Raises:
        UnknownNameError: unknown model, engine, quant or option.
        BadInputError: a number out of range.
        UnsupportedError: the engine can't do it on any machine.
        LoadError: the model's files are damaged, or its sizes aren't known: the hub can't be reached.
    """
    parallel = splitting.parallel_of(tp, pp, dp, nodes, executor)
    machine = described(hardware, nodes)
    parsed = parse(model, quant)
    found = with_quant(parsed, find(parsed))
    if engine == "auto":
        have = tuple(name for name in ENGINES if name in machine.engines)
        name, _ = pick_engine(model, found, quant, have=have, gpu=machine.gpu_first, device=machine.words)
    else:
        name = check_name(engine)
    form = first(found, name, quant or parsed.quant)
    if form is None:
        raise none_fits(model, found, name, quant)
    header = find_header(parsed, found)
    known = header or catalogue_header(parsed)
    if known is None:
        raise UnsupportedError(
            f"The sizes of {model} aren't known: its files aren't here, and the hub has none.", f"%llm pull {model}"
        )
    options = check_options(name, capabilities(name), extra or {})
    if lora is not None and "max_loras" in capabilities(name).extra:
        options["max_loras"] = lora
    splitting.check_engine(name, capabilities(name), parallel)
    return plan_on(
        machine, sized(known, form), form, parallel, ctx=ctx, gpu_layers=gpu_layers, max_concurrency=max_concurrency,
        options=options, complete=bool(known.kv_values),
    )  # fmt: skip


def plan_on(
    machine: Machine,
    header: Header,
    form: Form,
    parallel: Parallel,
    *,
    ctx: int | None = None,
    gpu_layers: int | None = None,
    max_concurrency: int | None = None,
    options: Mapping[str, Any] | None = None,
    complete: bool = True,
) -> DryRun:
    """The plan for a form whose header is known. Arguments as `dry_run`.

    Args:
        machine: the machine.
        header: the header of the form.
        form: the form; its engine loads it.
        parallel: how it is spread.
        ctx: context length in tokens.
        gpu_layers: layers on the GPU.
        max_concurrency: most sequences decoded at once.
        options: validated engine options.
        complete: the header says what the KV cache takes.
    """
    engine, options = form.engine, dict(options or {})
    able = capabilities(engine)
    problem = _problem(machine, header, form, parallel)
    on_gpu = machine.engines.get(engine) == "CUDA" and bool(machine.gpus)
    count = parallel.per_copy if able.tensor_parallel else len(machine.gpus)
    device = machine.device(engine, count)
    declares = declared(engine)
    asked = replace(declares.sizes(options, form.path), parallel=parallel)
    reserved = declares.reserves(header, options, device)
    size = settle_size(header, engine, ctx, max_concurrency, device=device, reserved=reserved, asked=asked)
    estimate = estimate_load(
        header, engine, size.length, size.concurrency, device, kv_tokens=size.kv_tokens, reserved=reserved, asked=asked
    )
    note = ""
    if able.gpu_layers and on_gpu:
        try:
            estimate, gpu_layers, note = offload.settle(
                header, estimate, device, gpu_layers, force=False, ram=machine.ram
            )
        except DoesNotFitError as error:
            problem = problem or str(error)
    if not problem and not estimate.fits:
        ways = "; ".join(estimate.suggestions) or "no context or quant would fit"
        problem = f"{header.name} does not fit: it needs about {estimate}. What would fit: {ways}."
    plan = LoadPlan(
        source=Source(form.spec.text, header.name, form.format, form.path or Path(form.where), form.quant,
                      online=form.online, known_header=header),
        context_length=size.length,
        gpu_layers=gpu_layers,
        parallel=parallel,
        max_concurrency=size.concurrency,
        extra=options,
        adapter_slots=reserved.adapter_slots,
        gpu_share=gpu_share(estimate, device) if able.paged_on_gpu and on_gpu and complete else None,
    )  # fmt: skip
    where = machine.engines.get(engine, "CPU")
    arguments = declares.arguments(plan, where)
    return DryRun(
        model=form.spec.text,
        machine=machine,
        engine=engine,
        quant=form.quant,
        parallel=parallel,
        context_length=size.length,
        max_concurrency=size.concurrency,
        estimate=estimate,
        complete=complete,
        arguments=arguments,
        processes=declares.processes(parallel, where),
        command=_command(form, parallel, ctx, max_concurrency, gpu_layers, options),
        server=declares.server(arguments),
        problem=problem,
        note=note,
    )


def _problem(machine: Machine, header: Header, form: Form, parallel: Parallel) -> str:
    """Why a load would be refused before its memory is looked at."""
    engine = form.engine
    if engine not in machine.engines:
        return f"{engine} doesn't run on {machine.words}."
    try:
        splitting.check_engine(engine, capabilities(engine), parallel)
        splitting.check_shape(header, parallel)
        gpus = len(machine.gpus) if machine.engines[engine] == "CUDA" else 0
        splitting.check_devices(parallel, gpus, here=not machine.assumed)
        compatibility.check(form.quant, engine, machine.engines[engine], avx512=True if machine.assumed else None)
    except BadInputError as error:
        return str(error)
    return ""


def _command(
    form: Form,
    parallel: Parallel,
    ctx: int | None,
    max_concurrency: int | None,
    gpu_layers: int | None,
    options: Mapping[str, Any],
) -> str:
    words = ["%llm load", shlex.quote(form.spec.text), f"--engine {form.engine}", f"--quant {form.quant}"]
    words += [f"--ctx {ctx}"] if ctx is not None else []
    words += [f"--max-concurrency {max_concurrency}"] if max_concurrency is not None else []
    words += [f"--gpu-layers {gpu_layers}"] if gpu_layers is not None else []
    # A kernel loads one copy.
    split = replace(parallel, data=1).options
    words += [split] if split else []
    return " ".join([*words, *(f"-x {key}={value}" for key, value in options.items())])
