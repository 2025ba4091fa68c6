"""The choice: what can't do it goes, then what was measured decides, then the rule that `--engine auto` follows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from llmlab.advice import measurement, requirements
from llmlab.advice.candidates import Option, catalogue_header, find_header, option
from llmlab.advice.machine import Machine
from llmlab.advice.reasons import look, other_form
from llmlab.advice.result import STRENGTHS, Advice, Reason, Use
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.files import tags
from llmlab.files.headers import Header
from llmlab.hub.form import Form
from llmlab.hub.spec import Spec, parse
from llmlab.loading.choice import pick_engine, with_quant
from llmlab.loading.forms import find
from llmlab.session import Lab
from llmlab.types import EngineName

ENGINES: tuple[EngineName, ...] = ("llamacpp", "vllm")


def advise(
    lab: Lab,
    model: str | None = None,
    *,
    concurrency: int = 1,
    adapters: int = 0,
    quant: str | None = None,
    needs: str | Iterable[str] = (),
    hardware: Machine | str | None = None,
    measure: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
) -> Advice:
    """Which engine and quant, for a model on a machine and a use, and why. Nothing is loaded unless it's measured.

    Args:
        lab: the bench whose current model is meant when none is named.
        model: a catalogue name, a path, `hf:org/repo`, or a loaded model's name.
        concurrency: requests at once.
        adapters: different LoRA adapters at once.
        quant: the quant that it has to be; None leaves the choice.
        needs: what it must be able to do, names of `llmlab.advice.NEEDS`.
        hardware: another machine than this one: `cpu:16`, `gpu:24`, `gpu:24x2`, `mac:16` (GiB that are free), or a
            `Machine`.
        measure: load the engines that could do it and measure them at that concurrency; the quicker one decides.
        progress: told what is done meanwhile.

    Returns:
        The advice; where no engine can do it, it says why not and the way out.

    Raises:
        UnknownNameError: no such model, quant or need; the closest is named.
        BadInputError: numbers that can't be, or a measurement of a machine that isn't this one.
        LoadError: the model's files are broken, or the hub that it's on can't be reached.
    """
    use = _use(lab, model, concurrency, adapters, quant, needs)
    machine = Machine.of(hardware) if isinstance(hardware, str) else hardware or Machine.here()
    if measure and machine.assumed:
        raise BadInputError(f"Only this machine can be measured, not {hardware}.", "Leave hardware or measure out.")
    parsed = parse(use.model, use.quant)
    if use.quant is None and parsed.quant is not None:
        use = replace(use, quant=parsed.quant)
    found = _forms(use, machine, parsed)
    header = find_header(parsed, found)
    sizes = header or catalogue_header(parsed)
    options = [_able(option(name, use, machine, parsed, found, sizes), use, header) for name in ENGINES]
    auto, rule = _auto(use, machine, found)
    reasons = look(use, machine, options, parsed, header, sizes)
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
    if model is None:
        model = lab.get().source.spec
    elif model in lab.models:
        model = lab.models[model].source.spec
    names = requirements.check(wanted)
    if adapters and "lora" not in names:
        names = (*names, "lora")
    if quant is not None:
        tags.canonical(quant)  # raises when there is no such tag
    return Use(str(model), concurrency, adapters, quant, names)


def _forms(use: Use, machine: Machine, parsed: Spec) -> tuple[Form, ...]:
    found = with_quant(parsed, find(parsed))
    if not found and use.quant is not None:
        # A load looks for it on the hub then, for the tag's own engine.
        tag = tags.canonical(use.quant)
        return (Form(parsed, tag.engine, tag.name, tag.format, "download", "the hub, looked for at the load", None),)
    if machine.assumed and parsed.path is None:
        # What lies in this machine's cache doesn't lie in that one's.
        return tuple(replace(form, action="download") for form in found)
    return found


def _able(found: Option, use: Use, header: Header | None) -> Option:
    """The option, out where a need isn't met."""
    if found.out:
        return found
    for need in use.needs:
        ok, evidence = requirements.has(found.engine, need, header)
        if ok is False:
            return replace(
                found, out=f"it has no {need} ({requirements.NEEDS[need]}): {evidence}", hint=f"Leave {need} out."
            )
    return found


def _auto(use: Use, machine: Machine, found: tuple[Form, ...]) -> tuple[EngineName | None, str]:
    """What `--engine auto` would take there, and its own words for why."""
    have = tuple(name for name in ENGINES if name in machine.engines)
    try:
        engine, why = pick_engine(use.model, found, use.quant, have=have, gpu=machine.vllm_on_gpu, device=machine.words)
        return engine, why.removeprefix(f"{engine}: ")
    except EngineMissingError as error:
        return None, error.message


def _choose(
    options: Sequence[Option], quicker: EngineName | None, auto: EngineName | None, rule: str
) -> tuple[Option | None, list[Reason]]:
    """The option, and the reasons that settle it: what can't is out, then the measured speed, then auto's rule."""
    alive = {one.engine: one for one in options if not one.out}
    why = []
    for one in options:
        if one.out:
            others = [name for name in alive if name != one.engine]
            found = f"{one.out}; --engine auto would take it" if one.engine == auto else one.out
            why.append(Reason(f"{one.engine} can't do it", found, others[0] if others else None, "decides"))
    if len(alive) < 2:
        return next(iter(alive.values()), None), why
    assert auto is not None  # both engines can do it, so auto takes one
    if quicker is None:
        why.append(Reason("--engine auto takes it", rule, auto, "decides"))
        return alive[auto], why
    says = "as measured" if quicker == auto else "what was measured counts for more than its rule"
    why.append(Reason("--engine auto", f"{rule}; {says}", auto))
    return alive[quicker], why


def _command(use: Use, chosen: Option) -> str:
    """The line that loads it; a load by it passes the same checks."""
    assert chosen.form is not None
    words = ["%llm load", shlex.quote(use.model), f"--engine {chosen.engine}"]
    if chosen.form.quant in tags.TAGS:  # a file of mixed types has no tag to ask for
        words.append(f"--quant {chosen.form.quant}")
    if chosen.explicit:
        words.append(f"--max-concurrency {use.concurrency}")
    if chosen.tensor_parallel > 1:
        words.append(f"--tp {chosen.tensor_parallel}")
    if "speculation" in use.needs:
        words.append("--draft ngram")
    if chosen.engine == "vllm" and use.adapters > _slots():
        words.append(f"-x max_loras={use.adapters}")
    return " ".join(words)


def _slots() -> int:
    from llmlab.engines.vllm.options import lora_slots

    return lora_slots({}, cpu=True)


def _way_out(options: Sequence[Option]) -> str:
    ways = dict.fromkeys(one.hint for one in options if one.hint)
    return " ".join(ways) or "%llm doctor says what is wrong here, %llm show MODEL what forms the model has."
