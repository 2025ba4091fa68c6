"""Switching a loaded model to another quant in place: the checks before, and the settings carried over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmlab.engines.registry import computes_on, engine_class
from llmlab.errors import UnsupportedError
from llmlab.files import fit, tags
from llmlab.loading.plan import Planned, gpu_share, make_plan
from llmlab.machine.memory import Device
from llmlab.quant import compatibility
from llmlab.types import FORMATS
from llmlab.types.parallel import Parallel

if TYPE_CHECKING:
    from llmlab.adapters.attached import Specs
    from llmlab.engines.base import LoadPlan
    from llmlab.model import Model
    from llmlab.types import EngineName
    from llmlab.types.progress import Progress


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch that passed every check.

    Attributes:
        planned: the planned load.
        first_release: whether the old model must be released before the new one is loaded.
        notes: additions to the status line: a change of engine, settings that can't be carried over.
    """

    planned: Planned
    first_release: bool
    notes: tuple[str, ...]


def meant(quant: str, engine: EngineName) -> tags.Tag:
    """The tag for a spelling, for a model that runs in `engine`.

    A canonical name in its exact spelling is that tag (`bf16` is vllm's, `BF16` llamacpp's); any other spelling is
    looked up for the running engine first, then for the other one.

    Raises:
        UnknownNameError: no engine has such a tag.
    """
    if quant.strip() in tags.TAGS:
        return tags.TAGS[quant.strip()]
    try:
        return tags.canonical(quant, engine)
    except UnsupportedError:
        return tags.canonical(quant)


def plan_switch(model: Model, quant: str, progress: Progress) -> Switch | None:
    """Decide and check a switch; nothing is loaded or released.

    Args:
        model: the loaded model.
        quant: the requested tag.
        progress: called with the progress of a download or conversion.

    Returns:
        The switch, or None if the model already has that quant.

    Raises:
        UnsupportedError: the model, the engine or the hardware doesn't support this quant; the hint names the nearest.
        EngineMissingError: the tag's engine isn't installed.
        DoesNotFitError: it wouldn't fit even without the old model.
    """
    check_here(model, "another quant")
    old: EngineName = model.engine
    tag = meant(quant, old)
    stays = tag.format == FORMATS[old]
    if stays and tag.name == model.quant:
        return None
    engine = old if stays else tag.engine
    engine_class(engine)  # raises when it isn't installed
    compatibility.check(tag.name, engine, computes_on(engine))
    plan = model.plan
    planned = make_plan(
        bare_spec(plan.source.spec),
        engine=engine,
        quant=tag.name,
        ctx=plan.context_length,
        gpu_layers=plan.gpu_layers if stays else None,
        parallel=plan.parallel if stays else Parallel(),
        max_concurrency=plan.max_concurrency,
        force=True,
        extra=_extra(engine, plan),
        progress=progress,
        draft=_draft(plan),
    )
    notes = []
    if not stays:
        notes.append(f"{old} → {tag.engine}, since {tag.name} is one of {tag.engine}'s")
        left = [key for key in plan.extra if key not in planned.plan.extra]
        if left:
            notes.append(f"-x {', '.join(left)} dropped: options of {old} only")
    if planned.plan.source.way:
        notes.append(planned.plan.source.way)
    planned, first = _in_place(model, planned)
    if first:
        notes.append(f"{model.quant} released first: not enough memory for both")
    return Switch(planned, first, tuple(notes))


def check_here(model: Model, what: str) -> None:
    """Refuse what only a model in this process can have.

    Raises:
        UnsupportedError: a server runs it.
    """
    if model.url is not None:
        raise UnsupportedError(
            f"{model.name} runs on the server at {model.source.spec}, so llmlab can't give it {what}.",
            "Change it there, or load the model in the kernel.",
        )


def plan_reload(model: Model, extra: Mapping[str, Any], progress: Progress) -> Switch:
    """Decide and check a reload with other engine options; nothing is loaded or released.

    Args:
        model: the loaded model.
        extra: the options to set, over those that it was loaded with.
        progress: called with the progress.

    Raises:
        UnknownNameError, BadInputError, UnsupportedError: the engine doesn't support an option.
        DoesNotFitError: it wouldn't fit even without the old model.
    """
    check_here(model, "other engine options")
    plan = model.plan
    planned = make_plan(
        bare_spec(plan.source.spec),
        engine=model.engine,
        quant=model.quant if model.quant in tags.TAGS else None,
        ctx=plan.context_length,
        gpu_layers=plan.gpu_layers,
        parallel=plan.parallel,
        max_concurrency=plan.max_concurrency,
        force=True,
        extra=_extra(model.engine, plan) | dict(extra),
        progress=progress,
        draft=_draft(plan),
    )
    planned, first = _in_place(model, planned)
    notes = [f"reloaded with -x {' -x '.join(f'{key}={value}' for key, value in extra.items())}"]
    if first:
        notes.append("released first: not enough memory for both")
    return Switch(planned, first, tuple(notes))


def _in_place(model: Model, planned: Planned) -> tuple[Planned, bool]:
    """The load in the place of a model, and whether that has to be released first."""
    first = must_go_first(model, planned)
    if first and planned.plan.gpu_share is not None:
        # Planned beside the old model; its memory is free by then.
        found = planned.estimate
        assert found is not None  # of a load, not of an attachment
        whole = Device(found.device, found.capacity, found.capacity, planned.plan.parallel.per_copy)
        share = gpu_share(found, whole)
        planned = replace(planned, plan=replace(planned.plan, gpu_share=share))
    return planned, first


def must_go_first(model: Model, planned: Planned) -> bool:
    """Whether the old model has to be released before the new one is loaded.

    Raises:
        DoesNotFitError: it would not fit even then.
    """
    found = planned.estimate
    assert found is not None
    if found.fits:
        return False
    held = model.memory()
    fit.check(replace(found, free=found.free + max(held.resident or 0, held.weights + held.kv_cache), suggestions=()))
    return True


def bare_spec(spec: str) -> str:
    """A model spec without the quant in `hf:org/repo:QUANT`."""
    return re.sub(r"(?<=[^:]):[^:/\s]+$", "", spec) if spec.startswith("hf:") and spec.count(":") > 1 else spec


def carry_over(specs: Specs, model: Model) -> str:
    """Attach the old model's adapters to the new one.

    Args:
        specs: the result of `Model.adapter_specs` before the switch.
        model: the new model.

    Returns:
        The adapters that could not be carried over, for the status line; "" if all could.
    """
    lost = model.restore_adapters(specs)
    return f"adapters dropped: {', '.join(lost)}" if lost else ""


def _extra(engine: EngineName, plan: LoadPlan) -> dict[str, Any]:
    """The options that the new engine also has; a draft keeps its number of tokens."""
    known = engine_class(engine).capabilities.extra
    shared = {key: value for key, value in plan.extra.items() if key in known}
    return shared | ({"draft_tokens": plan.draft.tokens} if plan.draft is not None else {})


def _draft(plan: LoadPlan) -> str | None:
    if plan.draft is None:
        return None
    return plan.draft.source.spec if plan.draft.source is not None else plan.draft.name
