"""The description of a function and of its parameters in a docstring: plain, Google, NumPy or reST style."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

from llmlab import _imports

# A Google heading directly below text: griffe takes it for text unless there is a blank line above it.
_HEADING = re.compile(r"(?<=\S)\n(?=\w+(?: \w+)?:[ \t]*\n[ \t]+\S)")


@dataclass(frozen=True)
class Doc:
    """A docstring's parts: what the function does, and what each parameter is."""

    description: str
    parameters: dict[str, str] = field(default_factory=dict)


def read_docstring(text: str | None) -> Doc:
    """Read a docstring.

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
