"""Parse docstrings in plain, Google, NumPy or reST style: the description and the parameters."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTIONS = (
    "args|arguments|parameters|params|other parameters|keyword args|keyword arguments|returns?|yields?|raises|"
    "examples?|notes?|warnings?|warns|see also|references|attributes|todo"
)
_GOOGLE = re.compile(rf"^({_SECTIONS}):\s*$", re.IGNORECASE)
_NUMPY = re.compile(rf"^({_SECTIONS})\s*$", re.IGNORECASE)
_PARAMETERS = {
    "args", "arguments", "parameters", "params", "other parameters", "keyword args", "keyword arguments",
}  # fmt: skip
_GOOGLE_ITEM = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY_ITEM = re.compile(r"^\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_FIELD = re.compile(r"^:(\w+)(?:\s+([^:]*?))?\s*:\s*(.*)$")


@dataclass(frozen=True)
class Doc:
    """A parsed docstring: the function's description, and each parameter's."""

    description: str
    parameters: dict[str, str] = field(default_factory=dict)


def read_docstring(text: str | None) -> Doc:
    """Parse a docstring.

    Args:
        text: the docstring, or None.

    Returns:
        The text before the first section, one line per paragraph, and the parameters' descriptions.
    """
    lines = inspect.cleandoc(text or "").split("\n")
    head: list[str] = []
    parameters: dict[str, list[str]] = {}
    section, style = "", ""
    item: list[str] | None = None
    position = 0
    while position < len(lines):
        line = lines[position]
        below = lines[position + 1].strip() if position + 1 < len(lines) else ""
        numpy = _NUMPY.match(line)
        if (google := _GOOGLE.match(line)) or (numpy and len(below) > 2 and not below.strip("-=")):
            section = (google or numpy)[1].lower()  # type: ignore[index]
            style, item = ("google" if google else "numpy"), None
            position += 1 if google else 2
            continue
        position += 1
        if found := _FIELD.match(line):
            section, style = "field", "rest"
            names = (found[2] or "").split()
            item = None
            if found[1] in ("param", "parameter", "arg", "argument", "key", "keyword") and names:
                item = parameters.setdefault(names[-1].lstrip("*"), [found[3]])
            continue
        if not section:
            head.append(line)
            continue
        if section in _PARAMETERS:
            names = _item(line, style)
            if names:
                item = [_GOOGLE_ITEM.match(line.strip())[2]] if style == "google" else []  # type: ignore[index]
                for name in names:
                    parameters[name] = item
                continue
        if item is not None:
            item.append(line)
    return Doc(
        "\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(head).strip()) if part.strip()),
        {name: text for name, parts in parameters.items() if (text := " ".join(" ".join(parts).split()))},
    )


def _item(line: str, style: str) -> list[str]:
    """The parameters that start on a line of a section; none if it continues the previous one."""
    indent = len(line) - len(line.lstrip())
    if style == "google":
        found = _GOOGLE_ITEM.match(line.strip())
        # Deeper lines continue the item above. The style indents by four columns; two are accepted.
        return [found[1]] if found and 0 < indent <= 4 else []
    if indent or not line.strip():
        return []
    found = _NUMPY_ITEM.match(line)
    return [name.strip() for name in found[1].split(",")] if found else []
