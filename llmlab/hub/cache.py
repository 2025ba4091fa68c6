"""Model files on this machine's disk: the hub's cache, files made by llmlab, and partial downloads.

Only these are listed or deleted, never the user's own files and folders.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmlab import config
from llmlab.errors import LlmLabError
from llmlab.files import tags
from llmlab.files.headers import folder_tag, read_config
from llmlab.hub import catalogue, discover, transfer
from llmlab.types import Format

Kind = Literal["downloaded", "made", "part"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A model's files in a cache, in one quant.

    Attributes:
        name: its name in commands: a catalogue name, `hf:org/repo`, or the name of a file made by llmlab.
        kind: downloaded (in the hub's cache), made (converted or quantized by llmlab), or part (a partial download,
            which the next pull resumes).
        quant: the tag, or `mixed` if the files don't specify one; "" for a part.
        bytes: bytes freed by deleting it.
        used: time of the last read or write, in seconds since 1970.
        repo: `org/name` on the hub; None if it was made here.
        paths: its files and folders.
    """

    name: str
    kind: Kind
    format: Format | None
    quant: str
    bytes: int
    used: float
    repo: str | None
    paths: tuple[Path, ...]


def on_disk() -> tuple[Stored, ...]:
    """All models in the hub's cache and in llmlab's, most recently used first.

    Returns:
        A `Stored` per model and quant: name, quant, format, files, size in bytes.

    Example:
        >>> made = llmlab.quantize("nano", "Q4_K_M")
        >>> "Q4_K_M" in [one.quant for one in llmlab.hub.cache.on_disk()]
        True
    """
    return tuple(sorted((*downloaded(), *made()), key=lambda one: -one.used))


def downloaded() -> list[Stored]:
    """The models and parts in the hub's cache."""
    from huggingface_hub import scan_cache_dir

    root = transfer.cache_root()
    if not config.is_folder(root, "HF_HUB_CACHE"):
        return []
    names = _names()
    found: list[Stored] = []
    try:
        repos = scan_cache_dir(root).repos
    except OSError as failed:  # one unreadable repository hides all
        config.warn_unreadable(root, failed, "HF_HUB_CACHE")
        return []
    for repo in repos:
        if repo.repo_type == "model":
            name = names.get(repo.repo_id, f"hf:{repo.repo_id}")
            found += _of_repo(repo, name)
    for part in config.matching(root, "models--*/blobs/*.incomplete"):
        repo_id = part.parent.parent.name.removeprefix("models--").replace("--", "/")
        stat = part.stat()
        name = names.get(repo_id, f"hf:{repo_id}")
        found.append(Stored(name, "part", None, "", stat.st_size, stat.st_mtime, repo_id, (part,)))
    return found


def _names() -> dict[str, str]:
    return {files.repo: entry.name for entry in reversed(catalogue.entries()) for files in entry.files}


def _of_repo(repo: Any, name: str) -> list[Stored]:
    """A cached repository's models: each GGUF tag, and each revision's folder with safetensors."""
    out: list[Stored] = []
    ggufs: dict[str, list[Any]] = {}
    for revision in repo.revisions:
        files = sorted(revision.files, key=lambda file: str(file.file_path))
        for file in files:
            if file.file_name.endswith(".gguf"):
                ggufs.setdefault(discover.tag_of(file.file_name), []).append(file)
        if any(file.file_name.endswith(".safetensors") for file in files):
            rest = [file for file in files if not file.file_name.endswith(".gguf")]
            quant = _folder_quant(revision.snapshot_path, repo.repo_id)
            out.append(_stored(name, "safetensors", quant, repo.repo_id, rest))
    out += [_stored(name, "gguf", tag, repo.repo_id, files) for tag, files in ggufs.items()]
    return out


def _stored(name: str, form: Format, quant: str, repo: str, files: list[Any]) -> Stored:
    blobs = {file.blob_path: file for file in files}
    size = sum(file.size_on_disk for file in blobs.values())
    used = max(file.blob_last_accessed for file in blobs.values())
    return Stored(name, "downloaded", form, quant, size, used, repo, tuple(file.file_path for file in files))


def _folder_quant(folder: Path, repo: str) -> str:
    try:
        found = folder_tag(read_config(folder))
    except LlmLabError:
        found = "mixed"
    return found if found != "mixed" else tags.in_repository(repo) or found


def made(folders: Iterable[Path] | None = None) -> list[Stored]:
    """The models that llmlab converted or quantized.

    Args:
        folders: only models in these folders of the cache; None for all.
    """
    root = config.cache_dir()
    if folders is None:
        folders = [*config.matching(root, "gguf/*"), *config.matching(root, "checkpoints/*")]
    out = []
    for place in folders:
        if not place.is_relative_to(root):
            continue
        for path in config.matching(place, "*"):
            if path.is_file() and path.suffix == ".gguf" and not path.name.startswith("."):
                quant = tags.in_filename(path.name) or "mixed"
                name = path.stem.removesuffix(f"-{quant}")
                out.append(_made(name, "gguf", quant, path, [path]))
            elif config.is_file(path / "config.json"):
                quant = _folder_quant(path, path.name)
                files = [file for file in path.rglob("*") if file.is_file()]
                out.append(_made(path.name, "safetensors", quant, path, files))
    return out


def _made(name: str, form: Format, quant: str, path: Path, files: list[Path]) -> Stored:
    stats = [file.stat() for file in files]
    used = max(max(stat.st_atime, stat.st_mtime) for stat in stats)
    return Stored(name, "made", form, quant, sum(stat.st_size for stat in stats), used, None, (path,))


def delete(items: Iterable[Stored]) -> int:
    """Delete the listed files, and nothing else.

    A blob in the hub's cache that another snapshot still links to is kept.

    Returns:
        The bytes freed.

    Raises:
        DiskError: a file can't be deleted; those before it are.
    """
    freed = 0
    repos = set()
    for item in items:
        for path in item.paths:
            with config.writing(path, action="be deleted"):
                freed += _remove(path) if item.kind != "downloaded" else _unlink(path)
                if item.kind == "made" and path.parent.is_dir() and not any(path.parent.iterdir()):
                    path.parent.rmdir()
        if item.repo is not None:
            repos.add(item.repo)
    for repo in repos:
        with config.writing(transfer.store(repo), action="be deleted", setting="HF_HUB_CACHE"):
            freed += _sweep(transfer.store(repo))
    return freed


def _remove(path: Path) -> int:
    """Remove a file or folder made by llmlab, or a partial download; only inside the caches."""
    inside = (config.cache_dir(), transfer.cache_root())
    assert any(path.resolve().is_relative_to(place.resolve()) for place in inside), path
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return size
    size = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    return size


def _unlink(path: Path) -> int:
    """Remove a file from a snapshot; in a cache without links, that is the file itself."""
    assert path.absolute().is_relative_to(transfer.cache_root().absolute()), path
    size = 0 if path.is_symlink() or not path.exists() else path.stat().st_size
    path.unlink(missing_ok=True)
    return size


def _sweep(store: Path) -> int:
    """Remove blobs that no snapshot links to, and a repository's folder once it is empty."""
    pointed = {link.resolve() for link in store.glob("snapshots/*/**/*") if link.is_symlink()}
    freed = 0
    for blob in store.glob("blobs/*"):
        if not blob.name.endswith(".incomplete") and blob.resolve() not in pointed:
            freed += blob.stat().st_size if blob.exists() and not blob.is_symlink() else 0
            blob.unlink(missing_ok=True)
    left = [path for path in (*store.glob("snapshots/*/**/*"), *store.glob("blobs/*")) if not path.is_dir()]
    if not left and store.is_dir():
        shutil.rmtree(store)
    return freed
