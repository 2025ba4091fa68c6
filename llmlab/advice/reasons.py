"""Evidence that doesn't decide by itself: files, memory, adapters, needs."""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.advice import requirements
from llmlab.advice.candidates import Option, describe
from llmlab.advice.machine import Machine
from llmlab.advice.result import Reason, Use
from llmlab.engines.registry import capabilities
from llmlab.errors import LlmLabError
from llmlab.files.fit import Estimate
from llmlab.files.headers import Header
from llmlab.hub import repository
from llmlab.hub.form import Form
from llmlab.hub.quant_repo import QuantRepo
from llmlab.render import units
from llmlab.types import EngineName

# From this ratio on, one of two estimates counts as smaller.
CLEARLY = 1.25


def look(
    use: Use,
    machine: Machine,
    options: Sequence[Option],
    header: Header | None,
    sizes: Header | None,
) -> list[Reason]:
    """Collect the evidence for the engines that can do it.

    Args:
        use: the workload.
        machine: the machine.
        options: one per engine.
        header: the model's header, if it could be read.
        sizes: the same, or the catalogue's figures; None if no sizes are known.
    """
    alive = [one for one in options if not one.out]
    found = [Reason("hardware", str(machine))]
    if sizes is not None:
        found += _memory(alive, sizes)
    found += _files(alive)
    found += _device(alive, machine)
    found += _needs(alive, use, header)
    found += _concurrency(alive, use)
    found += _adapters(alive, use)
    return found


def other_form(chosen: Option, sizes: Header) -> list[Reason]:
    """The reason, if the recommended form isn't a load's default."""
    if chosen.form is None or chosen.default is None or chosen.why_not is None:
        return []
    text = f"{chosen.default.quant} does not fit: {describe(chosen.why_not, sizes)}; loading it would be refused"
    if chosen.form.quant == chosen.default.quant:
        split = chosen.parallel
        found = f"{text}. It fits on {split.per_copy} GPUs ({split.options})"
        return [Reason("GPUs", found, chosen.engine, "decides")]
    found = f"{text}. {chosen.form.quant} is the largest form that fits"
    return [Reason("quant", found, chosen.engine, "decides")]


def _files(alive: Sequence[Option]) -> list[Reason]:
    """Which files are here, and which must be made or downloaded first."""
    states = {one.engine: one.form for one in alive if one.form is not None}
    text = "; ".join(f"{name}: {_state(form)}" for name, form in states.items())
    ready = [name for name, form in states.items() if form.action != "download"]
    only = ready[0] if len(ready) == 1 and len(states) > 1 else None
    return [Reason("files", text, only, "helps" if only else "note")] if states else []


def _state(form: Form) -> str:
    size = units.size(form.bytes or 0)
    if form.action == "ready":
        return f"{form.quant} ready"
    if form.action == "convert":
        return f"{form.quant} made at first use, {size}"
    gated = ", gated: requires accepting its terms and a login" if form.repo is not None and _gated(form.repo) else ""
    return f"{form.quant} to download{f', {size}' if form.bytes else ''} from {form.where}{gated}"


def _gated(repo: QuantRepo) -> bool:
    """Whether a repository requires an agreement, as the hub says; the list's own word if the hub can't be asked."""
    try:
        said = repository.listing(repo.repo, repo.revision).gated
    except LlmLabError as error:
        return bool(repo.gated) or "is gated" in error.message
    return bool(repo.gated if said is None else said)


def _memory(alive: Sequence[Option], sizes: Header) -> list[Reason]:
    found: dict[EngineName, Estimate] = {one.engine: one.estimate for one in alive if one.estimate is not None}
    out = [Reason(f"memory in {name}", describe(estimate, sizes)) for name, estimate in found.items()]
    if len(found) > 1:
        low, high = sorted(found, key=lambda name: found[name].total)
        if found[high].total > CLEARLY * found[low].total:
            text = f"estimated {units.size(found[low].total)} against {units.size(found[high].total)}"
            out.append(Reason("less memory", text, low, "helps"))
    return out


def _device(alive: Sequence[Option], machine: Machine) -> list[Reason]:
    fast = [one.engine for one in alive if machine.engines[one.engine] != "CPU"]
    if len(fast) == 1 and len(alive) > 1:
        slow = next(one.engine for one in alive if one.engine != fast[0])
        return [Reason("GPU", f"the installed {slow} is a CPU build and doesn't use the GPU", fast[0], "helps")]
    return []


def _needs(alive: Sequence[Option], use: Use, header: Header | None) -> list[Reason]:
    out = []
    for need in use.needs:
        answers = {one.engine: requirements.has(one.engine, need, header)[1] for one in alive}
        same = len(set(answers.values())) == 1
        listed = next(iter(answers.values())) if same else "; ".join(f"{k}: {v}" for k, v in answers.items())
        if answers:
            who = f"{' and '.join(answers)}: " if same else ""
            out.append(Reason(f"need {need}", f"{who}{listed}"))
    return out


def _concurrency(alive: Sequence[Option], use: Use) -> list[Reason]:
    batching = [one.engine for one in alive if requirements.has(one.engine, "batch", None)[0]]
    if use.concurrency == 1 or not batching:
        return []
    who = " and ".join(batching)
    text = f"{who}: continuous batching (declared: batch); use --measure to find the faster one"
    return [Reason(f"concurrency {use.concurrency}", text)]


def _adapters(alive: Sequence[Option], use: Use) -> list[Reason]:
    """How each engine handles several adapters (docs/adapters.md)."""
    slots = {one.engine: capabilities(one.engine).batch_adapters for one in alive}
    batching = next((name for name, count in slots.items() if count is not None), None)
    turns = " and ".join(name for name, count in slots.items() if count is None)
    if use.adapters < 2 or batching is None or not turns:
        return []
    most = max(slots[batching] or 0, use.adapters)
    if use.concurrency == 1:
        text = "one request at a time uses one adapter: both engines swap without a reload"
        return [Reason(f"{use.adapters} adapters", text)]
    text = (
        f"{batching} computes up to {most} different adapters per step; {turns} one, so groups of requests take turns "
        "of about 10 ms"
    )
    return [Reason(f"{use.adapters} adapters at once", text, batching, "helps")]
