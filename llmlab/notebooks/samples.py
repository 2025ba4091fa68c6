"""The example notebooks that come with llmlab, copied to a folder of the user's: `llmlab notebooks DIR`."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmlab.errors import BadInputError

# In an installed package; a checkout has them at its root.
_PACKAGED = Path(__file__).with_name("included")
_CHECKOUT = Path(__file__).parents[2] / "notebooks"


def notebooks() -> list[Path]:
    """The example notebooks, by name."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return sorted(folder.glob("*.ipynb"))


def copy_samples(target: str | Path) -> list[Path]:
    """Copy the example notebooks into a folder, which is created if necessary.

    Args:
        target: the folder.

    Returns:
        The copies.

    Raises:
        BadInputError: the folder has files with these names already, or can't be written; nothing was copied.
    """
    folder = Path(target).expanduser()
    found = notebooks()
    taken = [one.name for one in found if (folder / one.name).exists()]
    if taken:
        raise BadInputError(
            f"{folder} already has {taken[0]}{f' and {len(taken) - 1} more' if len(taken) > 1 else ''}.",
            "Choose another folder; your changes to these notebooks are kept.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(one, folder / one.name)) for one in found]
    except OSError as error:
        raise BadInputError(f"{folder} can't be written: {error.strerror}.") from None
