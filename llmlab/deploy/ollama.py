"""Ollama: the Modelfile of a loaded model."""

from __future__ import annotations

from collections.abc import Mapping

from llmlab.deploy.places import Places
from llmlab.deploy.snapshot import Lora, Snapshot
from llmlab.errors import UnsupportedError

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


def check(snapshot: Snapshot) -> None:
    """Refuse what a Modelfile can't express, by name.

    Raises:
        UnsupportedError: a mix of adapters, a scaled one, or a chat template that is more than plain turns.
    """
    if snapshot.adapter is not None and (len(snapshot.in_use) != 1 or snapshot.in_use[0].scale != 1):
        raise UnsupportedError(
            f"Ollama can't serve the adapter mix {snapshot.adapter}: it loads one adapter, unscaled.",
            "Merge it into the model (%llm lora merge MIX --as MODEL), or export it for llama-server.",
        )
    if snapshot.template is not None and snapshot.turns is None:
        raise UnsupportedError(
            f"Ollama can't use {snapshot.name}'s chat template: it isn't made of plain turns, which is what can be "
            "translated to Ollama's own template language.",
            "Export it for llama-server, which takes the template itself.",
        )


def notes(snapshot: Snapshot) -> list[str]:
    """What differs from the model in the kernel."""
    found = [
        (
            "The chat template is translated to Ollama's language. Plain conversations are checked against the model's "
            "own template; tools and reasoning in the template aren't translated."
        )
    ]
    if snapshot.template is None:
        found = ["The model has no chat template: its prompts are sent as they are."]
    elif snapshot.turns is not None and snapshot.turns.system is None:
        found.append("The chat template takes no system prompt.")
    if snapshot.draft is not None:
        found.append("Ollama has no speculative decoding with a draft of your own: the text is the same, but slower.")
    if snapshot.sampling.min_tokens or snapshot.sampling.logit_bias:
        found.append("Ollama has neither min_tokens nor logit_bias: the model's own values aren't applied.")
    idle = [one.name for one in snapshot.loras if not one.scale]
    if idle:
        names = ", ".join(f"Modelfile.{name}" for name in idle)
        found.append(f"An adapter is a model of its own there; those that aren't in use are in {names}.")
    found.append(
        "Ollama runs the file with its own build of llama.cpp; whether it knows the architecture isn't checked."
    )
    return found


def modelfile(snapshot: Snapshot, places: Places, lora: Lora | None = None) -> str:
    """The Modelfile.

    Args:
        snapshot: the model.
        places: where its files are.
        lora: the adapter to load; None: the one in use.
    """
    chosen = lora or next(iter(snapshot.in_use), None)
    lines = [f"FROM {places.of(snapshot.path)}"]
    if chosen is not None:
        lines.append(f"ADAPTER {places.of(chosen.path)}")
    lines.append(f'TEMPLATE """{template(snapshot)}"""')
    lines.append(f"PARAMETER num_ctx {snapshot.context}")
    for name, there in _PARAMETERS.items():
        if (value := getattr(snapshot.sampling, name)) is not None:
            lines.append(f"PARAMETER {there} {value:g}")
    if (snapshot.sampling.repetition_penalty or 1.0) != 1.0:
        lines.append("PARAMETER repeat_last_n -1")
    lines += [f'PARAMETER stop "{end}"' for end in snapshot.ends if end and '"' not in end and "\n" not in end]
    return "\n".join(lines) + "\n"


def template(snapshot: Snapshot) -> str:
    """The chat template in Ollama's language."""
    return snapshot.turns.go(snapshot.bos) if snapshot.turns is not None else "{{ .Prompt }}"


def command(_snapshot: Snapshot, _places: Places) -> list[str]:
    """The server; the model is created in it from its Modelfile."""
    return ["ollama", "serve"]


def create(snapshot: Snapshot, file: str) -> list[str]:
    """The command that makes the model."""
    return ["ollama", "create", snapshot.name, "-f", file]


def environment(snapshot: Snapshot) -> Mapping[str, str]:
    """How many requests at once; the length of the context is in the Modelfile."""
    return {"OLLAMA_NUM_PARALLEL": str(snapshot.concurrency)}
