"""Adapters that have a name: the user's own, made by `%llm tune`, and those that llmlab ships for nano."""

from __future__ import annotations

import re
from pathlib import Path

from llmlab import config, zoo
from llmlab.errors import BadInputError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # a folder's name has at most 255 characters
# Words that mean something where an adapter's name may stand.
_TAKEN = ("none", "off")


def own_dir() -> Path:
    """The folder that tuned adapters are written to, one folder each."""
    return config.data_dir() / "adapters"


def find(name: str) -> Path | None:
    """The PEFT folder of an adapter with this name, the user's own first; None when there is none."""
    if not _NAME.fullmatch(name):
        return None
    for folder in (own_dir() / name, zoo.adapter_path(name)):
        if (folder / "adapter_config.json").is_file():
            return folder
    return None


def names() -> list[str]:
    """The names of all adapters that `find` finds, sorted."""
    own = {file.parent.name for file in own_dir().glob("*/adapter_config.json")}
    return sorted({name for name in own if _NAME.fullmatch(name)} | set(zoo.adapter_names()))


def check_name(name: str) -> None:
    """See that a name can be an adapter's: it becomes a folder, and `a:0.5+b` must stay readable.

    Raises:
        BadInputError: it can't.
    """
    if not _NAME.fullmatch(name) or name.lower() in _TAKEN:
        raise BadInputError(
            f"An adapter can't be called {name!r}.",
            "A name has letters, digits, - _ and . only, at most 100; none and off mean something else.",
        )
