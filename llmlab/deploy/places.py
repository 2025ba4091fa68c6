"""Where a deployment finds the model's files: on this machine, or mounted into a container."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llmlab.deploy.snapshot import Snapshot

TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine in a container."""

    host: Path
    inside: str


@dataclass(frozen=True, slots=True)
class Places:
    """Maps this machine's paths to those that the deployment uses.

    Attributes:
        folder: the export's folder, with the chat template.
        mounts: the folders that a container sees; empty: the deployment runs on this machine.
    """

    folder: Path
    mounts: tuple[Mount, ...] = ()

    def of(self, path: Path) -> str:
        """A path as the deployment has it."""
        path = path.absolute()
        for mount in self.mounts:
            if path == mount.host or path.is_relative_to(mount.host):
                rest = path.relative_to(mount.host).as_posix()
                return mount.inside if rest == "." else f"{mount.inside}/{rest}"
        return str(path)

    @property
    def template(self) -> str:
        """Where the chat template is."""
        return self.of(self.folder / TEMPLATE)


def local(folder: Path) -> Places:
    """The paths on the machine itself."""
    return Places(folder.absolute())


def mounted(snapshot: Snapshot, folder: Path) -> Places:
    """The paths in a container that sees the model's folders, read-only.

    Args:
        snapshot: the model.
        folder: the export's folder.
    """
    wanted = [(snapshot.path, "/model")]
    if snapshot.draft is not None and snapshot.draft.source is not None:
        wanted.append((snapshot.draft.source.path.absolute(), "/draft"))
    wanted += [(one.path.absolute(), f"/adapters/{place}") for place, one in enumerate(snapshot.loras)]
    mounts: list[Mount] = []
    for path, inside in wanted:
        root = _root(path)
        if not any(root == one.host or root.is_relative_to(one.host) for one in mounts):
            mounts.append(Mount(root, inside))
    return Places(folder.absolute(), (*mounts, Mount(folder.absolute(), "/export")))


def _root(path: Path) -> Path:
    """The folder to mount: with what the hub cache's links point to."""
    folder = path if path.is_dir() else path.parent
    files = [one for one in folder.iterdir() if one.is_file()] if path.is_dir() else [path]
    return Path(os.path.commonpath([folder, *(one.resolve().parent for one in files if one.is_symlink())]))
