"""The models of a job: loaded, attached or to be loaded; their content, and how another process loads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError
from llmlab.experiments import identity
from llmlab.experiments.design import Subject as Named
from llmlab.loading.plan import make_plan
from llmlab.loading.switch import bare_spec
from llmlab.types.parallel import Parallel

if TYPE_CHECKING:
    from llmlab.engines.base import LoadPlan
    from llmlab.model import Model
    from llmlab.session import Lab
    from llmlab.types.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A model of a job.

    Attributes:
        label: its name.
        content: what its answers depend on, in JSON's types.
        load: the arguments of `Lab.load` that make the same model in another process; empty for an attached one.
        model: the model, if it is loaded or attached.
        plan: its load plan; None for an attached one.
        sources: name -> where each attached adapter is.
    """

    label: str
    content: Mapping[str, Any]
    load: Mapping[str, Any] = field(default_factory=dict)
    model: Model | None = None
    plan: LoadPlan | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def find(
    given: str | Model | Sequence[str | Model] | None,
    lab: Lab,
    *,
    engine: str,
    quant: str | None,
    ctx: int | None,
    progress: Progress,
) -> list[Subject]:
    """The models of a job.

    Args:
        given: a loaded or attached model or its name, what `Lab.load` takes, or several; None: the current one.
        lab: where names are looked up.
        engine: the engine of a model that is to be loaded.
        quant: its quant.
        ctx: its context length.
        progress: called while files are looked for.

    Raises:
        BadInputError: no model, or several that aren't the same one.
        LlmLabError: as `Lab.load`.
    """
    several: list[Any] = [given] if given is None or isinstance(given, str) or hasattr(given, "stream") else list(given)
    found = [_found(one, lab, engine=engine, quant=quant, ctx=ctx, progress=progress) for one in several]
    if not found:
        raise BadInputError("The list of models is empty.", 'For example model="nano".')
    first = found[0]
    for other in found[1:]:
        differ = [name for name in first.content if first.content[name] != other.content.get(name)]
        if differ:
            name = differ[0]
            raise BadInputError(
                f"{first.label} and {other.label} aren't the same model: {name} is {first.content[name]!r:.60} and "
                f"{other.content.get(name)!r:.60}.",
                "The workers of a job must give the same answers: run one job for each model.",
            )
    if len({id(one.model) for one in found}) < len(found):
        raise BadInputError(f"{first.label} is in the list of models twice.", "Name each model once.")
    return found


def _found(
    given: str | Model | None, lab: Lab, *, engine: str, quant: str | None, ctx: int | None, progress: Progress
) -> Subject:
    model = lab.get(given) if given is None else lab.models.get(given) if isinstance(given, str) else given
    if model is not None:
        return _of_model(model)
    assert isinstance(given, str)
    planned = make_plan(
        given, engine=engine, quant=quant, ctx=ctx, gpu_layers=None, parallel=Parallel(), max_concurrency=None,
        force=False, extra={}, progress=progress,
    )  # fmt: skip
    load = {"model": given, "engine": planned.engine, "quant": quant, "ctx": ctx}
    named = Named(given, planned.engine, planned.plan.source.quant)
    return Subject(given, _content(identity.of_plan(named, planned.engine, planned.plan)), load, plan=planned.plan)


def _of_model(model: Model) -> Subject:
    if model.url is not None:
        there = {"model": model.facts.model_id, "quant": model.quant, "fields": model.plan.extra.get("fields")}
        return Subject(model.name, there, model=model)
    plan = model.plan
    load = {
        "model": bare_spec(model.source.spec),
        "engine": model.engine,
        "quant": model.source.quant or None,
        "ctx": plan.context_length,
        "max_concurrency": plan.max_concurrency,
        "extra": {name: value for name, value in plan.extra.items() if isinstance(value, str | int | float | bool)},
        "draft": plan.draft.name if plan.draft is not None else None,
    }
    if plan.parallel.gpus > 1:
        load |= {"tp": plan.parallel.tensor, "pp": plan.parallel.pipeline, "dp": plan.parallel.data}
    sources = {entry.name: str(entry.spec) for entry in model.adapter_entries()}
    return Subject(model.name, _content(identity.of_model(model)), load, model, plan, sources)


def _content(own: identity.Identity) -> dict[str, Any]:
    """An identity without what changes no answer: its name, and the context length, which may depend on free memory."""
    found = own.as_dict()
    del found["context"]
    if found["weights"]:
        del found["model"]
    return found
