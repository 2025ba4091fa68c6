"""Adds a request's images to its vLLM prompt; vLLM inserts an image's tokens at its placeholder."""

from __future__ import annotations

import io
from typing import Any

from llmlab.engines.base import Request
from llmlab.errors import GenerationError


def rendered(llm: Any, request: Request) -> Any:
    """A request's prompt with its images, through vLLM's own renderer (the model's image processor).

    Raises:
        GenerationError: an image can't be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        shown = [Image.open(io.BytesIO(image)).convert("RGB") for image in request.images]
    except (UnidentifiedImageError, OSError) as error:
        raise GenerationError(f"Can't read an image: {error}.", "Save it as PNG or JPEG.") from None
    raw = {"prompt_token_ids": list(request.prompt_ids), "multi_modal_data": {"image": shown}}
    (prompt,) = llm.renderer.render_cmpl([raw])
    request.buffer.prompt_is(len(prompt["prompt_token_ids"]))
    return prompt
