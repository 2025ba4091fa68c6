"""The choice: exclude engines that can't do it, then decide by measurements, then by the `--engine auto` rule."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from llmlab.advice import measurement, requirements
from llmlab.advice.candidates import Option, catalogue_header, find_header, option
from llmlab.advice.machine import Machine, described
from llmlab.advice.reasons import look, other_form
from llmlab.advice.result import STRENGTHS, Advice, Reason, Use
from llmlab.engines.registry import ENGINES, capabilities
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.files import tags
from llmlab.files.headers import Header
from llmlab.hub.form import Form
from llmlab.hub.spec import Spec, parse
from llmlab.loading.choice import pick_engine, with_quant
from llmlab.loading.forms import find
from llmlab.loading.switch import check_here
from llmlab.session import Lab
from llmlab.types import EngineName


def advise(
    lab: Lab,
    model: str | None = None,
    *,
    concurrency: int = 1,
    adapters: int = 0,
    quant: str | None = None,
    needs: str | Iterable[str] = (),
    hardware: Machine | str | None = None,
    nodes: int = 1,
    measure: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
) -> Advice:
    """Recommend an engine and a quant for a model, a machine and a workload. Loads nothing unless `measure` is set.

    Args:
        lab: the session; its current model is the default.
        model: a catalogue name, a path, `hf:org/repo`, or a loaded model's name.
        concurrency: concurrent requests.
        adapters: different LoRA adapters at once.
        quant: the required quant; None for any.
        needs: required features, names from `llmlab.advice.NEEDS`.
        hardware: another machine: `cpu:16`, `gpu:24`, `gpu:24x2`, `mac:16` (free memory in GB), or a `Machine`;
            None is this machine.
        nodes: machines like it, joined in a Ray cluster.
        measure: load the candidate engines and measure them at that concurrency; the faster one wins.
        progress: called with (phase, fraction done or None).

    Returns:
        The advice; if no engine can do it, the reasons and suggestions.

    Raises:
        UnknownNameError: an unknown model, quant or need, with the closest name.
        BadInputError: invalid numbers, or `measure` for another machine.
        LoadError: the model's files are broken, or the hub can't be reached.
    """
    use = _use(lab, model, concurrency, adapters, quant, needs)
    machine = described(hardware, nodes)
    if measure and machine.assumed:
        raise BadInputError(f"Only this machine can be measured, not {hardware}.", "Remove hardware or measure.")
    parsed = parse(use.model, use.quant)
    if use.quant is None and parsed.quant is not None:
        use = replace(use, quant=parsed.quant)
    found = _forms(use, machine, parsed)
    header = find_header(parsed, found)
    sizes = header or catalogue_header(parsed)
    options = [_able(option(name, use, machine, parsed, found, sizes), use, header) for name in ENGINES]
    auto, rule = _auto(use, machine, found)
    reasons = look(use, machine, options, header, sizes)
    quicker = None
    bench = None
    alive = [one for one in options if not one.out]
    if measure and alive:
        bench, more, quicker, failed = measurement.measure(lab, use, alive, progress or (lambda _what, _share: None))
        options = [replace(one, out=failed.get(one.engine, one.out)) for one in options]
        alive = [one for one in options if not one.out]
        reasons += more
    chosen, why = _choose(options, quicker, auto, rule)
    if chosen is not None and sizes is not None:
        why += other_form(chosen, sizes)
    ordered = sorted([*why, *reasons], key=lambda reason: STRENGTHS.index(reason.strength))
    if chosen is None or chosen.form is None:
        return Advice(use, machine, None, None, "", tuple(ordered), auto, _way_out(options), bench)
    command = _command(use, chosen)
    return Advice(use, machine, chosen.engine, chosen.form.quant, command, tuple(ordered), auto, "", bench)


def _use(
    lab: Lab, model: str | None, concurrency: int, adapters: int, quant: str | None, wanted: str | Iterable[str]
) -> Use:
    for name, value, low in (("concurrency", concurrency, 1), ("adapters", adapters, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise BadInputError(f"{name} must be a whole number, {low} or more, got {value!r}.")
    loaded = lab.get() if model is None else lab.models.get(model)
    if loaded is not None:
        check_here(loaded, "another engine or quant")
        model = loaded.source.spec
    names = requirements.check(wanted)
    if adapters and "lora" not in names:
        names = (*names, "lora")
    if quant is not None:
        tags.canonical(quant)  # raises for an unknown tag
    return Use(str(model), concurrency, adapters, quant, names)


def _forms(use: Use, machine: Machine, parsed: Spec) -> tuple[Form, ...]:
    found = with_quant(parsed, find(parsed))
    if not found and use.quant is not None:
        # A load would then search the hub for it, for the tag's engine.
        tag = tags.canonical(use.quant)
        return (Form(parsed, tag.engine, tag.name, tag.format, "download", "the hub, searched at load time", None),)
    if machine.assumed and parsed.path is None:
        # Files in this machine's cache aren't in the other machine's.
        return tuple(replace(form, action="download") for form in found)
    return found


def _able(found: Option, use: Use, header: Header | None) -> Option:
    """The option, excluded if a need isn't met."""
    if found.out:
        return found
    for need in use.needs:
        ok, evidence = requirements.has(found.engine, need, header)
        if ok is False:
            return replace(
                found, out=f"doesn't support {need} ({requirements.NEEDS[need]}): {evidence}", hint=f"Leave {need} out."
            )
    return found


def _auto(use: Use, machine: Machine, found: tuple[Form, ...]) -> tuple[EngineName | None, str]:
    """The engine that `--engine auto` would choose, and its reason."""
    have = tuple(name for name in ENGINES if name in machine.engines)
    try:
        engine, why = pick_engine(use.model, found, use.quant, have=have, gpu=machine.gpu_first, device=machine.words)
        return engine, why.removeprefix(f"{engine}: ")
    except EngineMissingError as error:
        return None, error.message


def _choose(
    options: Sequence[Option], quicker: EngineName | None, auto: EngineName | None, rule: str
) -> tuple[Option | None, list[Reason]]:
    """The chosen option and the deciding reasons: exclusions, then the measured speed, then auto's rule."""
    alive = {one.engine: one for one in options if not one.out}
    why = []
    for one in options:
        if one.out:
            others = [name for name in alive if name != one.engine]
            found = f"{one.out}; --engine auto would choose it" if one.engine == auto else one.out
            why.append(Reason(f"{one.engine} can't do it", found, others[0] if others else None, "decides"))
    if len(alive) < 2:
        return next(iter(alive.values()), None), why
    assert auto is not None  # both engines can do it, so auto chooses one
    if quicker is None:
        why.append(Reason("--engine auto chooses it", rule, auto, "decides"))
        return alive[auto], why
    outcome = "as measured" if quicker == auto else "the measurement overrides the rule"
    why.append(Reason("--engine auto", f"{rule}; {outcome}", auto))
    return alive[quicker], why


def _command(use: Use, chosen: Option) -> str:
    """The command that loads it; such a load passes the same checks."""
    assert chosen.form is not None
    words = ["%llm load", shlex.quote(use.model), f"--engine {chosen.engine}"]
    if chosen.form.quant in tags.TAGS:  # a file of mixed types has no tag
        words.append(f"--quant {chosen.form.quant}")
    if chosen.explicit:
        words.append(f"--max-concurrency {use.concurrency}")
    if chosen.parallel.options:
        words.append(chosen.parallel.options)
    if "speculation" in use.needs:
        words.append("--draft ngram")
    slots = capabilities(chosen.engine).batch_adapters
    if slots is not None and use.adapters > slots:
        words.append(f"-x max_loras={use.adapters}")
    return " ".join(words)


def _way_out(options: Sequence[Option]) -> str:
    ways = dict.fromkeys(one.hint for one in options if one.hint)
    return " ".join(ways) or "Check the installation with %llm doctor, and the model's forms with %llm show MODEL."
