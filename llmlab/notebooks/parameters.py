"""A notebook's parameters: the names set in its cell tagged `parameters`, and their given values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmlab.errors import BadInputError, unknown

# A name set at the start of a line, with or without a type: lines inside a list or a dict are indented.
_SET = re.compile(r"^([A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}


def names(notebook: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names set in a notebook's `parameters` cell; None if no cell has that tag."""
    for cell in notebook["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            return tuple(dict.fromkeys(_SET.findall("".join(cell["source"]))))
    return None


def value(text: str) -> Any:
    """Parse a value from the command line: like papermill's `-p`, and lists and maps as YAML.

    `True`, `false`, `None`, `3` and `0.5` are Python values, `[F16, Q8_0]` is a list, `'7'` in quotes is text,
    and so is everything else.

    Raises:
        BadInputError: a list, a map or a quoted text isn't closed.
    """
    if text in _WORDS:
        return _WORDS[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    if not text.startswith(("[", "{", "'", '"')):
        return text
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInputError(
            f"{text!r} starts like a list, a map or a quoted text, but isn't valid YAML.", "Is it closed and quoted?"
        ) from error


def check(given: Iterable[str], notebooks: Mapping[Path, Mapping[str, Any]]) -> None:
    """Check that every notebook has all given parameters.

    Raises:
        UnknownNameError: a notebook doesn't have one; with its names and the closest.
        BadInputError: a notebook has no parameters at all.
    """
    for name in given:
        for path, notebook in notebooks.items():
            known = names(notebook)
            if known is None:
                raise BadInputError(
                    f"{path} has no parameters, but {name} is given.",
                    "Tag the cell that sets them `parameters` (JupyterLab: the gears on the right, Cell Tags).",
                )
            if name not in known:
                raise unknown("parameter", name, known, f"In {path.name}.")
