"""Adds a request's images to its vLLM prompt; vLLM inserts an image's tokens at its placeholder."""

from __future__ import annotations

from typing import Any

from llmlab.engines import pictures
from llmlab.engines.base import Request


def rendered(llm: Any, request: Request) -> Any:
    """A request's prompt with its images, through vLLM's own renderer (the model's image processor).

    Raises:
        GenerationError: an image can't be read.
    """
    shown = [pictures.read(image) for image in request.images]
    raw = {"prompt_token_ids": list(request.prompt_ids), "multi_modal_data": {"image": shown}}
    (prompt,) = llm.renderer.render_cmpl([raw])
    request.buffer.prompt_is(len(prompt["prompt_token_ids"]))
    return prompt
