"""A notebook's parameters: what its cell tagged `parameters` sets, and values given for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmlab.errors import BadInputError, unknown

# A name set at the margin, with or without a type: lines inside a list or a dict are indented.
_SET = re.compile(r"^([A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}


def names(notebook: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names that a notebook's `parameters` cell sets; None when no cell has that tag."""
    for cell in notebook["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            return tuple(dict.fromkeys(_SET.findall("".join(cell["source"]))))
    return None


def value(text: str) -> Any:
    """A value typed on a command line: as papermill's `-p` reads it, and lists and maps as YAML does.

    `True`, `false`, `None`, `3` and `0.5` mean what they say, `[F16, Q8_0]` is a list, `'7'` with its quotes is text,
    and so is everything else.

    Raises:
        BadInputError: a list, a map or a quoted text that is not closed.
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
            f"{text!r} begins like a list, a map or a quoted text, and is none.", "Is it closed, and in quotes?"
        ) from error


def check(given: Iterable[str], notebooks: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse a parameter that one of the notebooks doesn't have.

    Raises:
        UnknownNameError: with the names it has, and the closest.
        BadInputError: the notebook has no parameters at all.
    """
    for name in given:
        for path, notebook in notebooks.items():
            known = names(notebook)
            if known is None:
                raise BadInputError(
                    f"{path} takes no parameters, and {name} is given.",
                    "Tag the cell that sets them `parameters` (JupyterLab: the gears at the right, Cell Tags).",
                )
            if name not in known:
                raise unknown("parameter", name, known, f"In {path.name}.")
