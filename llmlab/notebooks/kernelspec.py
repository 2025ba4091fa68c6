"""Installs a Jupyter kernel that imports engines in the background from its start."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmlab import config
from llmlab.errors import BadInputError, unknown
from llmlab.types import FORMATS

NAME = "llmlab"
# In kernel.json's metadata: written by llmlab, which may replace it.
MARK = "llmlab"


def install(
    name: str = NAME,
    *,
    title: str | None = None,
    user: bool = False,
    prefix: str | None = None,
    warm: Sequence[str] = (),
) -> Path:
    """Write a kernelspec for this Python.

    Args:
        name: the kernel's name, for `jupyter` and `llmlab run --kernel`.
        title: the name that JupyterLab shows; None: "llmlab (Python 3.12)".
        user: into the user's folder, for a Jupyter of another environment; else into this environment.
        prefix: into another environment's folder.
        warm: engines that `%load_ext llmlab` imports in the background.

    Returns:
        The kernelspec's folder.

    Raises:
        BadInputError: another kernel has that name, or Jupyter isn't installed.
        UnknownNameError: no such engine.
        DiskError: the folder can't be written.
    """
    try:
        from ipykernel.kernelspec import get_kernel_dict
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise BadInputError("Kernels need Jupyter.", "pip install 'llmlab[notebooks]'") from error
    for engine in warm:
        if engine not in FORMATS:
            raise unknown("engine", engine, FORMATS)
    manager = KernelSpecManager()
    other = installed().get(name) if name in manager.find_kernel_specs() else {MARK: True}
    if other is None:
        raise BadInputError(f"A kernel {name!r} exists, and llmlab didn't write it.", "Choose another --name.")
    found: dict[str, Any] = get_kernel_dict()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found["argv"] = [sys.executable, *found["argv"][1:]]
    found["display_name"] = title or f"llmlab (Python {version})"
    found["metadata"] = {**found.get("metadata", {}), MARK: True}
    # No tcmalloc, libiomp or OMP_*: none pays enough (bench/README.md), and the engines set their threads.
    found["env"] = {"LLMLAB_WARM": ",".join(warm)} if warm else {}
    with config.scratch() as folder:
        (folder / "kernel.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        where = None if user else prefix or sys.prefix
        with config.writing(Path(where or Path.home()) / "share" / "jupyter" / "kernels" / name):
            try:
                return Path(manager.install_kernel_spec(str(folder), name, user=user, prefix=where))
            except ValueError as error:
                raise BadInputError(f"{error}.".replace("..", ".")) from None


def installed() -> dict[str, dict[str, Any]]:
    """The kernels that `install` wrote: name -> the content of kernel.json."""
    from jupyter_client.kernelspec import KernelSpecManager

    found = {}
    for name, folder in KernelSpecManager().find_kernel_specs().items():
        try:
            content = json.loads((Path(folder) / "kernel.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("metadata", {}).get(MARK):
            found[name] = content
    return found
