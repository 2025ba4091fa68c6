"""Whether a loaded model supports image input, from its engine's capabilities and its files."""

from __future__ import annotations

from typing import cast

from llmlab.engines.base import ModelFacts
from llmlab.engines.registry import declared
from llmlab.errors import UnsupportedError
from llmlab.types import EngineName


def refusal(name: str, engine: str, facts: ModelFacts) -> UnsupportedError | None:
    """The error for sending an image to this model; None if it supports images.

    Args:
        name: the model's name.
        engine: the engine's name.
        facts: what the model reports about itself.
    """
    if facts.sees and "images" in declared(cast("EngineName", engine)).capabilities.features:
        return None
    hint = "Load a vision model, or describe the image in words."
    if "mmproj" in declared(cast("EngineName", engine)).capabilities.extra:
        hint = "Put its projector (mmproj-*.gguf) next to the file, or name it: %llm load ... --mmproj FILE"
    return UnsupportedError(f"{name} supports text only: its files include no vision encoder.", hint)
