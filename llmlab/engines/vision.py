"""Images: whether a loaded model can be shown one, from what its engine declares and what its files say."""

from __future__ import annotations

from llmlab.engines.base import ModelFacts
from llmlab.engines.registry import check_name, engine_class
from llmlab.errors import UnsupportedError


def refusal(name: str, engine: str, facts: ModelFacts) -> UnsupportedError | None:
    """Why a model can't be shown an image, with the way out; None when it can.

    Args:
        name: what the model is called.
        engine: the engine's name.
        facts: what the model says of itself.
    """
    if not facts.sees:
        return UnsupportedError(
            f"{name} reads text only: its files have no part for images.", "Say in words what is to be seen in it."
        )
    if "images" not in engine_class(check_name(engine)).capabilities.features:
        return UnsupportedError(
            f"{name} can see, but llmlab gives {engine} no images yet: it is asked with text only.",
            "Load its safetensors in vllm (--engine vllm), or say in words what is to be seen in it.",
        )
    return None
