"""The arena's columns: what one is, its name, what it is asked, and all of them as an experiment."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError, UnknownNameError
from llmlab.inference.thoughts import think_of, think_text
from llmlab.types import Message

if TYPE_CHECKING:
    from llmlab.experiments.experiment import Experiment
    from llmlab.model import Model
    from llmlab.session import Lab

LETTERS = "ABCDEFGH"
_OWN = ("model", "adapter", "system", "sampling")
_SHORT = 40


def column(given: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """A normalized column; sampling params may be given as its fields or under "sampling".

    Raises:
        BadInputError: it has a seed of its own, or an invalid `think`.
    """
    own = {key: value for key, value in given.items() if key not in _OWN}
    chosen = {**sampling, **dict(given.get("sampling") or {}), **own}
    chosen = {key: value for key, value in chosen.items() if value not in (None, "", [])}
    if "think" in chosen:  # as text: a page has no other form of it
        chosen["think"] = think_text(chosen["think"])
    if "seed" in chosen:
        raise BadInputError("A column can't have its own seed.", "All columns share one: llmlab.arena(..., seed=7)")
    texts = {key: str(given.get(key) or "") for key in ("model", "adapter", "system")}
    return {**texts, "sampling": chosen}


def label(one: Mapping[str, Any], lab: Lab) -> str:
    """A column's model, quant, adapter, system prompt and sampling params, in one line."""
    try:
        model = lab.get(one["model"] or None)
        parts = [model.name, model.quant]
    except UnknownNameError:
        parts = [one["model"] or "(no model)"]
    parts += [f"adapter {one['adapter']}"] if one["adapter"] else []
    system = " ".join(one["system"].split())
    parts += [f"system “{system if len(system) <= _SHORT else system[:_SHORT] + '…'}”"] if system else []
    parts += [f"{key} {value}" for key, value in one["sampling"].items()]
    return " · ".join(parts)


def options(one: Mapping[str, Any], model: Model, seed: int) -> dict[str, Any]:
    """The keyword arguments of a column's request."""
    found: dict[str, Any] = {**one["sampling"], "seed": seed}
    if "think" in found:
        found["think"] = think_of(found["think"])
    if one["adapter"] or model.adapter:
        found["adapter"] = one["adapter"] or "none"
    return found


def conversation(rounds: Sequence[Mapping[str, Any]], place: int, prompt: str) -> list[Message]:
    """What a column is asked: its own earlier answers, and the prompt.

    Raises:
        BadInputError: the column has no answer to an earlier prompt.
    """
    turns: list[Message] = []
    for one in rounds:
        answer = one["answers"][place]
        if answer["error"] or not answer["text"]:
            raise BadInputError(
                f"Column {LETTERS[place]} has no answer to follow up on.", "Start again with a new prompt."
            )
        turns += [
            Message("user", one["prompt"]),
            Message("assistant", answer["text"], reasoning=str(answer["thought"] or "")),
        ]
    return [*turns, Message("user", prompt)]


def experiment(
    name: str, columns: Sequence[Mapping[str, Any]], prompts: Sequence[str], *, system: str, seed: int, lab: Lab
) -> Experiment:
    """The columns as the variants of an experiment: only they, not every combination of their settings.

    Args:
        name: the experiment's name.
        columns: the columns.
        prompts: the prompts.
        system: the system prompt of the columns without their own.
        seed: the seed; -1 draws one.
        lab: the lab with the models.

    Raises:
        BadInputError: there is no prompt, or a setting that an experiment can't vary.
    """
    from llmlab.experiments import design as designs
    from llmlab.experiments.experiment import Experiment

    if not prompts:
        raise BadInputError("There is no prompt yet.", "Send one, or name some: arena.experiment(prompts=[...])")
    if any("think" in one["sampling"] for one in columns):
        raise BadInputError("An experiment can't vary think yet.", "Remove it from the columns.")
    models: list[Model] = []
    axes: dict[str, dict[str, Any]] = {"adapters": {}, "systems": {}, "params": {}}
    variants = []
    for one in columns:
        model = lab.get(one["model"] or None)
        models += [model] if model not in models else []
        own = (("adapters", one["adapter"] or None), ("systems", (one["system"] or system).strip() or None))
        labels = [_labelled(axes[axis], value, value or designs.NONE) for axis, value in own]
        name_of = " ".join(f"{key}={value}" for key, value in one["sampling"].items()) or "the model's defaults"
        labels.append(_labelled(axes["params"], one["sampling"], name_of))
        variants.append((models.index(model), *labels))
    made = designs.make(
        name,
        prompts=list(prompts),
        models=models,
        seeds=[seed if seed >= 0 else secrets.randbelow(2**31)],
        variants=variants,
        adapters=axes["adapters"],
        systems=axes["systems"],
        params=axes["params"],
    )
    return Experiment(made, [], lab=lab)


def _labelled(axis: dict[str, Any], value: Any, name: str) -> str:
    axis[name] = value
    return name
