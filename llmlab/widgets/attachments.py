"""Files attached to a message: texts, images, and the text of PDFs."""

from __future__ import annotations

import base64
import io
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError, LlmLabError
from llmlab.types import data_url, image_of
from llmlab.types.images import IMAGE_FORMS, encoded

MAX_FILE = 2_000_000
"""Most characters of an attached text."""
MAX_PDF_BYTES = 50_000_000
MAX_PDF_PAGES = 300


def files(
    given: Sequence[Mapping[str, str] | str | Path], no_images: LlmLabError | None = None
) -> list[dict[str, Any]]:
    """Validate attached files.

    Args:
        given: paths of text files, images and PDFs; or {"name": ..., "text": ...}, {"name": ..., "image": data: URL}.
        no_images: why the model doesn't support images, or None if it does.

    Raises:
        BadInputError: a file can't be read, isn't text, or is too large.
        UnsupportedError: an image, and the model doesn't support images.
    """
    return [_one(file, no_images) for file in given]


def _one(file: Mapping[str, str] | str | Path, no_images: LlmLabError | None) -> dict[str, Any]:
    if isinstance(file, str | Path):
        return _of_path(Path(file), no_images)
    name, text = str(file.get("name", "file")), file.get("text")
    if file.get("image"):
        if no_images is not None:
            raise no_images
        return {"name": name, "image": data_url(image_of(str(file["image"])))}
    kind = mimetypes.guess_type(name)[0] or ""
    if not isinstance(text, str) and no_images is not None and kind.startswith("image/"):
        raise no_images
    if not isinstance(text, str):
        raise BadInputError(f"{name} isn't text.", "Attach text files.")
    if len(text) > MAX_FILE:
        raise BadInputError(f"{name} has {len(text):,} characters.", f"Attach at most {MAX_FILE:,}.")
    pages = {"pages": int(file["pages"])} if file.get("pages") else {}
    return {"name": name, "text": text, **pages}


def _of_path(path: Path, no_images: LlmLabError | None) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_PDF_BYTES:
            raise BadInputError(f"{path.name} has {path.stat().st_size:,} bytes.", f"Attach at most {MAX_PDF_BYTES:,}.")
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} can't be read: {error.strerror or error}.", "Check the path.") from None
    if data.startswith(b"%PDF-") or path.suffix.lower() == ".pdf":
        return pdf(data, path.name)
    if any(data.startswith(start) for start in IMAGE_FORMS.values()):
        if no_images is not None:
            raise no_images
        return {"name": path.name, "image": data_url(encoded(data))}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadInputError(f"{path.name} isn't text.", "Attach text files, images or PDFs.") from None
    return _one({"name": path.name, "text": text}, no_images)


def pdf(data: bytes | str, name: str) -> dict[str, Any]:
    """The text of a PDF, as an attached file.

    Args:
        data: the file's bytes, or its bytes in base64.
        name: its name.

    Returns:
        Its name, text and number of pages.

    Raises:
        BadInputError: it is damaged, encrypted or too large, or has no text.
        LlmLabError: the package pypdf isn't installed.
    """
    if isinstance(data, str):
        data = base64.b64decode(data)
    if len(data) > MAX_PDF_BYTES:
        raise BadInputError(f"{name} has {len(data):,} bytes; at most {MAX_PDF_BYTES:,} are read.", "Split it.")
    pages = _pages(data, name)
    text = "\n\n".join(pages).strip()
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    if not text:
        raise BadInputError(
            f"{name} has no text: its {len(pages)} pages are images.",
            "Recognize it first, for example with ocrmypdf in.pdf out.pdf, or attach its pages as images.",
        )
    if len(text) > MAX_FILE:
        raise BadInputError(f"{name} has {len(text):,} characters.", f"Attach at most {MAX_FILE:,}: split the file.")
    return {"name": name, "text": text, "pages": len(pages)}


def _pages(data: bytes, name: str) -> list[str]:
    try:
        _imports.load("pypdf")
        import pypdf
    except ImportError as error:
        raise LlmLabError("Reading PDFs needs the package pypdf.", "pip install 'llmlab[widgets]'") from error
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise BadInputError(
                f"{name} is encrypted.", "Remove its password, for example with qpdf --decrypt in.pdf out.pdf."
            )
        count = len(reader.pages)
        if count > MAX_PDF_PAGES:
            raise BadInputError(
                f"{name} has {count:,} pages; at most {MAX_PDF_PAGES} are read.",
                "Attach a part of it, for example made with qpdf in.pdf --pages . 1-50 -- out.pdf.",
            )
        return [page.extract_text() for page in reader.pages]
    except BadInputError:
        raise
    except Exception as error:
        if type(error).__name__ == "DependencyError":  # AES needs the package cryptography
            raise BadInputError(
                f"{name} is encrypted.", "Remove its password, for example with qpdf --decrypt in.pdf out.pdf."
            ) from error
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadInputError(
            f"{name} can't be read as a PDF: {why}.",
            "Open it in a viewer and print it to a new PDF, or attach its text.",
        ) from error
