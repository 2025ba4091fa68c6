"""Adapters found by name: the user's own, made by `%llm tune`, and those that llmlab ships for nano."""

from __future__ import annotations

import re
from pathlib import Path

from llmlab import config, zoo
from llmlab.errors import BadInputError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # leaves room below the 255 characters of a folder name
# Words with a special meaning in place of an adapter's name.
_TAKEN = ("none", "off")


def own_dir() -> Path:
    """The folder of tuned adapters, with one folder per adapter."""
    return config.data_dir() / "adapters"


def find(name: str) -> Path | None:
    """The PEFT folder of an adapter by name, the user's own first; None if there is none."""
    if not _NAME.fullmatch(name):
        return None
    for folder in (own_dir() / name, zoo.adapter_path(name)):
        if config.is_file(folder / "adapter_config.json"):
            return folder
    return None


def names() -> list[str]:
    """The names of all adapters known to `find`, sorted."""
    own = {file.parent.name for file in config.matching(own_dir(), "*/adapter_config.json")}
    return sorted({name for name in own if _NAME.fullmatch(name)} | set(zoo.adapter_names()))


def check_name(name: str) -> None:
    """Check that a name is valid for an adapter: it becomes a folder name, and must work in `a:0.5+b`.

    Raises:
        BadInputError: it isn't valid.
    """
    if not _NAME.fullmatch(name) or name.lower() in _TAKEN:
        raise BadInputError(
            f"An adapter can't be called {name!r}.",
            "A name has at most 100 characters, only letters, digits, - _ and .; none and off are reserved.",
        )
