"""Convert a tool's return value to text for the model: data as JSON, tables and images as a short description."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_CHARACTERS = 8_000
MAX_ROWS = 20
_IMAGE_HEADS = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP",
}  # fmt: skip
_CONTROL = re.compile(r"<\|[^\s|]{1,40}\|>|\[/?[A-Z_]{2,30}\]|</?[a-z_]{1,30}>")


def text_of(value: Any) -> str:
    """Convert a tool's return value to text for the model.

    Text is unchanged; None is "done, no result"; numbers, dicts, lists, dataclasses and pydantic models become JSON;
    a DataFrame its shape and first rows as CSV; an array its shape and values; an image or figure its size and format;
    anything else its `str`.

    Args:
        value: what the tool returned.

    Returns:
        At most `MAX_CHARACTERS` characters, plus a note on how many were cut.
    """
    return shortened(_text(value), MAX_CHARACTERS)


def shortened(text: str, limit: int) -> str:
    """Cut a text at a limit, with a note on how much was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n… ({len(text) - limit:,} more characters)"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if value is None:
        return "done, no result"
    package = type(value).__module__.partition(".")[0]
    if package in _BY_PACKAGE:
        text = _BY_PACKAGE[package](value)
        if text is not None:
            return text
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(bytes(value))
    if _is_data(value):
        try:
            from pydantic_core import to_jsonable_python

            return json.dumps(to_jsonable_python(value, fallback=_text), ensure_ascii=False)
        except (ValueError, TypeError, RecursionError):
            return str(value)
    image = _shown_image(value)
    return image if image is not None else str(value)


def _is_data(value: Any) -> bool:
    if isinstance(value, bool | int | float | Mapping | list | tuple | set | frozenset):
        return True
    return dataclasses.is_dataclass(value) or hasattr(value, "model_dump") or type(value).__module__ == "datetime"


def _pandas(value: Any) -> str | None:
    kind = type(value).__name__
    if kind == "Series":
        head = f"Series of {len(value):,} values"
        return _with_more(head, str(value.head(MAX_ROWS).to_csv()), len(value))
    if kind == "DataFrame":
        head = f"DataFrame, {value.shape[0]:,} rows x {value.shape[1]} columns"
        plain = list(value.index[:MAX_ROWS]) == list(range(min(len(value), MAX_ROWS)))
        return _with_more(head, str(value.head(MAX_ROWS).to_csv(index=not plain)), len(value))
    return None


def _polars(value: Any) -> str | None:
    if type(value).__name__ != "DataFrame":
        return None
    head = f"DataFrame, {value.height:,} rows x {value.width} columns"
    return _with_more(head, str(value.head(MAX_ROWS).write_csv()), value.height)


def _with_more(head: str, csv: str, rows: int) -> str:
    left = f"\n… {rows - MAX_ROWS:,} more rows" if rows > MAX_ROWS else ""
    return f"{head}:\n{csv.strip()}{left}"


def _numpy(value: Any) -> str | None:
    if not hasattr(value, "ndim"):
        return None
    if value.ndim == 0:
        return json.dumps(value.item(), default=str)
    shape = " x ".join(map(str, value.shape))
    return f"array, shape {shape}, {value.dtype}:\n{value!s}"


def _pillow(value: Any) -> str | None:
    if not hasattr(value, "size") or not hasattr(value, "mode"):
        return None
    form = f", {value.format}" if getattr(value, "format", None) else ""
    return f"[image, {value.size[0]} x {value.size[1]} pixels, {value.mode}{form}; kept for the user]"


def _matplotlib(value: Any) -> str | None:
    figure = value if hasattr(value, "get_axes") else getattr(value, "figure", None)
    if figure is None or not hasattr(figure, "get_axes"):
        return None
    titles = [title for axes in figure.get_axes() if (title := axes.get_title())]
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    return f"[figure, {width} x {height} pixels{': ' + '; '.join(titles) if titles else ''}; kept for the user]"


_BY_PACKAGE: dict[str, Callable[[Any], str | None]] = {
    "pandas": _pandas,
    "polars": _polars,
    "numpy": _numpy,
    "PIL": _pillow,
    "matplotlib": _matplotlib,
}


def _bytes(data: bytes) -> str:
    form = next((name for head, name in _IMAGE_HEADS.items() if data.startswith(head)), None)
    return f"[image, {form}, {len(data):,} bytes; kept for the user]" if form else f"[{len(data):,} bytes]"


def _shown_image(value: Any) -> str | None:
    """Describe an object that a notebook displays as an image (IPython.display.Image, a chart); None for others."""
    data = getattr(value, "data", None)
    if isinstance(data, bytes) and any(data.startswith(head) for head in _IMAGE_HEADS):
        return _bytes(data)
    for method, name in (("_repr_png_", "PNG"), ("_repr_jpeg_", "JPEG"), ("_repr_svg_", "SVG")):
        if callable(getattr(type(value), method, None)):
            return f"[image, {name}; kept for the user]"
    return None


def without_controls(text: str, tokenize: Callable[[str], list[int]], plain: Callable[[str], list[int]]) -> str:
    """Escape control tokens in a tool's result: a page that contains `<|end|>` must not end the turn.

    Args:
        text: the text.
        tokenize: text -> ids, with special tokens recognised.
        plain: text -> ids, with special tokens as plain text.

    Returns:
        The text, with a space after the first character of each control token.
    """

    def broken(found: re.Match[str]) -> str:
        mark = found[0]
        ids = tokenize(mark)
        return f"{mark[0]} {mark[1:]}" if len(ids) == 1 and ids != plain(mark) else mark

    return _CONTROL.sub(broken, text)
