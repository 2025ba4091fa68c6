"""Parse docstrings in plain, Google, NumPy or reST style: the description and the parameters."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

from llmlab import _imports

# A Google heading directly below text: griffe reads it as text unless a blank line precedes it.
_HEADING = re.compile(r"(?<=\S)\n(?=\w+(?: \w+)?:[ \t]*\n[ \t]+\S)")


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
    _imports.load("griffe")
    from griffe import Docstring, parse_auto

    docstring = Docstring("")
    # griffe 2.4 recognizes a style only by a heading or field that has a line above it and one below.
    docstring.value = "\n" + _HEADING.sub("\n\n", inspect.cleandoc(text or "")) + "\n"
    sections = parse_auto(
        docstring,
        per_style_options={"google": {"warnings": False}, "numpy": {"warnings": False}, "sphinx": {"warnings": False}},
    )
    head = sections[0].value if sections and sections[0].kind.value == "text" else ""
    found = [
        (parameter.name.lstrip("*"), " ".join(parameter.description.split()))
        for section in sections
        if section.kind.value in ("parameters", "other parameters")
        for parameter in section.value
    ]
    return Doc(
        "\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", head) if part.strip()),
        {name: description for name, description in found if description},
    )
