"""Whether a loaded model supports image input, from its engine's capabilities and its files."""

from __future__ import annotations

from llmlab.engines.base import ModelFacts
from llmlab.engines.registry import check_name, engine_class
from llmlab.errors import UnsupportedError


def refusal(name: str, engine: str, facts: ModelFacts) -> UnsupportedError | None:
    """The error for sending an image to this model; None if it supports images.

    Args:
        name: the model's name.
        engine: the engine's name.
        facts: what the model reports about itself.
    """
    if not facts.sees:
        return UnsupportedError(
            f"{name} supports text only: its files include no vision encoder.",
            "Put its projector (mmproj-*.gguf) next to the file, or name it: %llm load ... --mmproj FILE"
            if engine == "llamacpp"
            else "Load a vision model, or describe the image in words.",
        )
    if "images" not in engine_class(check_name(engine)).capabilities.features:
        return UnsupportedError(
            f"{name} is a vision model, but llmlab doesn't support images on {engine} yet.",
            "Load its safetensors in vllm (--engine vllm), or describe the image in words.",
        )
    return None
