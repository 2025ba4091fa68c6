"""Encoded images as pixels, within limits: the same on every engine."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from llmlab import _imports
from llmlab.errors import GenerationError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 50_000_000
"""Larger images are refused before they are decompressed: a few kilobytes can hold gigabytes of one colour."""
_HELP = "Save it as PNG or JPEG."


def read(image: bytes) -> Image:
    """An image's first frame in RGB, upright, on white where it is transparent.

    Args:
        image: an encoded image (PNG, JPEG, WebP, GIF).

    Raises:
        GenerationError: it can't be read, or has more than `MOST_PIXELS`.
    """
    _imports.load("PIL.Image", "PIL.ImageOps")
    _imports.load("PIL")
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(image), formats=("PNG", "JPEG", "WEBP", "GIF")) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise GenerationError(
                    f"The image has {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are read.",
                    "Make it smaller.",
                )
            shown = ImageOps.exif_transpose(opened) or opened
            if shown.has_transparency_data:
                shown = shown.convert("RGBA")
                white = Image.new("RGBA", shown.size, "white")
                shown = Image.alpha_composite(white, shown)
            return shown.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise GenerationError(f"Can't read an image: {error}.", _HELP) from None
