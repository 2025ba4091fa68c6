"""Images in messages: from bytes, files, data URLs, PIL, numpy and matplotlib, to encoded bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError

IMAGE_FORMS = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
"""Accepted image formats and their magic bytes."""
MOST_BYTES = 32 * 2**20
"""A larger encoded image is refused."""
_TAKES = "Give bytes, a path, a data: URL, a PIL image, a numpy array (height, width, 3) or a matplotlib figure."


def encoded(value: Any) -> bytes:
    r"""An image as the bytes of a PNG, JPEG, WebP or GIF file.

    Args:
        value: the bytes; a path; a data: URL; a PIL image; a numpy array, shape (height, width) or (height, width, 3
            or 4), of uint8, or of floats from 0 to 1; or a matplotlib figure. Other URLs aren't fetched.

    Returns:
        The bytes.

    Raises:
        BadInputError: it is none of these, too large, or the file can't be read.

    Example:
        >>> import numpy as np
        >>> encoded(np.zeros((2, 2, 3), dtype="uint8"))[:4]
        b'\x89PNG'
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _checked(bytes(value), "The image")
    if isinstance(value, str) and value.startswith("data:"):
        return image_of(value)
    if isinstance(value, str) and value.partition("://")[0] in ("http", "https"):
        raise BadInputError(
            f"llmlab doesn't fetch images by itself: {value:.80}.", "Give its path, or llmlab.types.fetch_image(url)."
        )
    if isinstance(value, str | Path):
        try:
            return _checked(Path(value).read_bytes(), str(value))
        except OSError as error:
            raise BadInputError(
                f"The image {value} can't be read: {error.strerror or error}.", "Check the path."
            ) from None
    if hasattr(value, "savefig"):
        out = io.BytesIO()
        value.savefig(out, format="png")
        return out.getvalue()
    if hasattr(value, "__array_interface__") and not hasattr(value, "convert"):
        value = _of_array(value)
    if hasattr(value, "convert") and hasattr(value, "save"):
        out = io.BytesIO()
        value.save(out, "PNG")
        return out.getvalue()
    raise BadInputError(f"An image can't be a {type(value).__name__}.", _TAKES)


def fetch_image(url: str, *, timeout: float = 30.0) -> bytes:
    """Fetch an image from the web; nothing else in llmlab does.

    Args:
        url: an http: or https: URL; redirects are followed.
        timeout: seconds to wait for the host, and for each part of the answer.

    Returns:
        The bytes of a PNG, JPEG, WebP or GIF file, for `Message(images=...)`.

    Raises:
        BadInputError: it can't be fetched, is larger than 32 MiB, or is no image.
    """
    if url.partition("://")[0].lower() not in ("http", "https"):
        raise BadInputError(f"{url[:80]!r} is no http: or https: URL.", "Give a file's path instead.")
    _imports.load("httpx")
    import httpx

    found = bytearray()
    try:
        with httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                found += part
                if len(found) > MOST_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadInputError(f"{url:.80} can't be fetched: {reason}.", "Check the URL and the network.") from None
    return _checked(bytes(found), url[:80])


def _of_array(value: Any) -> Any:
    _imports.load("PIL")
    from PIL import Image

    if value.dtype.kind == "f":
        value = (value.clip(0, 1) * 255).round().astype("uint8")
    try:
        return Image.fromarray(value)
    except (TypeError, ValueError):
        raise BadInputError(f"An array of shape {value.shape} and type {value.dtype} is no image.", _TAKES) from None


def _checked(image: bytes, name: str) -> bytes:
    if len(image) > MOST_BYTES:
        raise BadInputError(f"{name} has {len(image):,} bytes; at most {MOST_BYTES:,} are taken.", "Make it smaller.")
    if not any(image.startswith(start) for start in IMAGE_FORMS.values()):
        raise BadInputError(f"{name} is no PNG, JPEG, WebP or GIF.", "Save it as one of these.")
    return image


def data_url(image: bytes) -> str:
    """An encoded image as a data: URL.

    Args:
        image: the bytes of a PNG, JPEG, WebP or GIF file.

    Returns:
        The URL, as a content part of a message takes it.

    Example:
        >>> llmlab.types.data_url(b"GIF89a")
        'data:image/gif;base64,R0lGODlh'
    """
    form = next((name for name, start in IMAGE_FORMS.items() if image.startswith(start)), "png")
    return f"data:image/{form};base64,{base64.b64encode(image).decode()}"


def image_of(url: str) -> bytes:
    """The encoded image in a data: URL.

    Raises:
        BadInputError: it isn't a data: URL of an image; llmlab doesn't fetch URLs.
    """
    head, _, body = url.partition(";base64,")
    try:
        image = base64.b64decode(body, validate=True) if head.startswith("data:image/") else b""
    except ValueError:
        image = b""
    if not any(image.startswith(start) for start in IMAGE_FORMS.values()):
        raise BadInputError(
            f"An image must be a data: URL of a PNG, JPEG, WebP or GIF, got {url[:40]!r}.",
            "Make one from a file's bytes: llmlab.types.data_url(path.read_bytes())",
        )
    return image
