"""Files from the Hugging Face hub, through huggingface_hub: its cache, login and offline mode.

Every failure becomes a one-line message with a suggested fix. The token is never read, shown or passed on here.
`HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_HUB_CACHE` are read at each call, not only at import.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from llmlab.errors import BadInputError, LoadError, UnsupportedError, unknown
from llmlab.hub.failures import endpoint, is_connection, offline, retried, translated
from llmlab.types.progress import Progress

# The files of a model folder. No Python files: code from a repository is never downloaded or run.
_FOLDER_FILES = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
    "README.md",
    "LICENSE*",
]
# Other copies of the same weights (Meta's and Mistral's own layouts, ONNX exports) are in folders or have this name.
_FOLDER_IGNORES = ["*/*", "consolidated*"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository's top-level files with their sizes, and whether the list came from the hub or from the cache.

    `bases`: the repositories that it was quantized from, if the hub knows them. `gated`: it requires an agreement and a
    login; None if the hub wasn't asked. `moved`: the repository's name now, if it was renamed.
    """

    repo: str
    revision: str | None
    files: dict[str, int]
    online: bool
    bases: tuple[str, ...] = ()
    gated: bool | None = None
    moved: str | None = None


def cache_dir() -> str | None:
    """The hub's cache folder as set in the environment; None leaves it to huggingface_hub."""
    if os.environ.get("HF_HUB_CACHE"):
        return os.environ["HF_HUB_CACHE"]
    home = os.environ.get("HF_HOME")
    return str(Path(home) / "hub") if home else None


def listing(repo: str, revision: str | None = None) -> Listing:
    """A repository's top-level files.

    Args:
        repo: `org/name`.
        revision: branch, tag or commit; None is the main branch.

    Raises:
        BadInputError: the hub has no such repository or revision.
        LoadError: the hub can't be reached or refuses, or the repository is gated; and the cache has no copy.
    """
    if offline():
        return _cached_listing(repo, revision)
    from huggingface_hub import HfApi

    with translated(repo, revision):
        try:
            # Without the client's own retries, which take long when there is no network.
            api = HfApi(endpoint=endpoint())
            info = retried(lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=10))
        except Exception as error:
            if not is_connection(error):
                raise
            # If the hub is down, cached files can still be used.
            try:
                return _cached_listing(repo, revision)
            except LoadError:
                raise error from None
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    top = {name: size for name, size in files.items() if "/" not in name}
    moved = info.id if info.id and info.id.lower() != repo.lower() else None
    bases = _bases(info.tags or ())
    return Listing(repo, revision, top, online=True, bases=bases, gated=bool(info.gated), moved=moved)


def _bases(tags: Iterable[str]) -> tuple[str, ...]:
    """The models that a repository was quantized from, according to its tags on the hub."""
    mark = "base_model:quantized:"
    return tuple(tag.removeprefix(mark) for tag in tags if tag.startswith(mark))


def _cached_listing(repo: str, revision: str | None) -> Listing:
    from huggingface_hub import snapshot_download

    with translated(repo, revision):
        # "*.none" matches nothing, so that an incomplete snapshot is found too.
        folder = Path(
            snapshot_download(
                repo, revision=revision, cache_dir=cache_dir(), local_files_only=True, allow_patterns="*.none"
            )
        )
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return Listing(repo, revision, files, online=False)


def _has_files(repo: str) -> bool:
    """Whether the hub's cache may have files of a repository, without importing huggingface_hub (0.1 s) to look."""
    root = cache_dir() or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not root:
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        root = str(Path(home) / "huggingface" / "hub")
    # Not Path.is_dir, which raises for a name that is too long.
    return "$" in root or os.path.isdir(Path(root).expanduser() / f"models--{repo.replace('/', '--')}")  # noqa: PTH112


def cached_file(repo: str, filename: str, revision: str | None = None) -> Path | None:
    """A file in the hub's cache, or None; no request is made."""
    if not _has_files(repo):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, cache_dir=cache_dir(), revision=revision)
    return Path(found) if isinstance(found, str) else None


def cached_names(repo: str, revision: str | None = None) -> list[str]:
    """The names of a repository's files in the hub's cache; no request is made."""
    if not _has_files(repo):
        return []
    try:
        return list(_cached_listing(repo, revision).files)
    except (LoadError, BadInputError):
        return []


def cached_folder(repo: str, revision: str | None = None) -> Path | None:
    """A model folder in the hub's cache with all its weights, or None; no request is made."""
    from llmlab.files.safetensors import weight_files

    config = cached_file(repo, "config.json", revision)
    if config is None:
        return None
    try:
        weight_files(config.parent)
    except (LoadError, UnsupportedError):
        return None
    return config.parent


def fetch_file(
    repo: str, filename: str, revision: str | None = None, *, size: int = 0, progress: Progress | None = None
) -> Path:
    """One file of a repository, from the cache or downloaded into it (a partial download is resumed).

    Args:
        repo: `org/name`.
        filename: the file's name in it.
        revision: branch, tag or commit; None is the main branch.
        size: bytes, for the progress; 0 if unknown.
        progress: called with ("download", fraction); None shows a bar.

    Raises:
        as `listing`; BadInputError if the repository has no such file; LoadError if the disk has no room, or
            the checksum is wrong (the file is removed then).
        PullInterrupted: Ctrl-C; the next call resumes the download.
    """
    return fetch_files(repo, [filename], revision, size=size, progress=progress)[0]


def fetch_files(
    repo: str, names: Sequence[str], revision: str | None = None, *, size: int = 0, progress: Progress | None = None
) -> list[Path]:
    """Several files of a repository (the parts of a split model), as `fetch_file`, with one progress."""
    cached = [cached_file(repo, name, revision) for name in names]
    if all(cached):
        return [path for path in cached if path is not None]
    found = listing(repo, revision)
    for name in names:
        if found.online and name not in found.files:
            ggufs = [one for one in sorted(found.files) if one.endswith(".gguf")]
            raise unknown("file", name, ggufs or sorted(found.files), f"(in {repo})")
    return _fetch(found, names, size, progress)


def fetch_folder(repo: str, revision: str | None = None, *, progress: Progress | None = None) -> Path:
    """A model folder (configuration, tokenizer, safetensors), from the cache or downloaded into it.

    Raises:
        as `fetch_file`; UnsupportedError if the weights are available only as pickles; LoadError if there are none.
    """
    cached = cached_folder(repo, revision)
    if cached is not None:
        return cached
    found = listing(repo, revision)
    if found.online:
        check_weights(found)
    # Weights last: a folder with all its weights counts as complete.
    names = sorted(folder_files(found), key=lambda name: (name.endswith(".safetensors"), name))
    if not names:
        raise LoadError(f"{repo} is not completely in the hub's cache, and HF_HUB_OFFLINE is set.")
    paths = _fetch(found, names, 0, progress)
    return paths[0].parent


def folder_files(found: Listing) -> list[str]:
    """The files of a repository that a model folder needs."""
    return folder_names(found.files)


def folder_names(names: Iterable[str]) -> list[str]:
    """Those of a repository's file names that a model folder needs."""
    return [
        name
        for name in names
        if any(fnmatch(name, pattern) for pattern in _FOLDER_FILES)
        and not any(fnmatch(name, pattern) for pattern in _FOLDER_IGNORES)
    ]


def _fetch(found: Listing, names: Sequence[str], size: int, progress: Progress | None) -> list[Path]:
    from huggingface_hub import hf_hub_download

    from llmlab.hub import transfer

    if not found.online:
        out = []
        for name in names:
            with translated(found.repo, found.revision, name):
                out.append(
                    hf_hub_download(
                        found.repo, name, revision=found.revision, cache_dir=cache_dir(), local_files_only=True
                    )
                )
        return [Path(path) for path in out]
    sizes = {name: found.files.get(name, 0) for name in names}
    with transfer.DownloadMeter(progress, sum(sizes.values()) or size, found.repo) as meter:
        todo = []
        for name in names:
            if cached_file(found.repo, name, found.revision) is None:
                todo.append(name)
            else:
                meter.add(sizes[name])
        transfer.check_room(found.repo, {name: sizes[name] for name in todo})
        return [
            transfer.fetch(found.repo, name, found.revision, meter)
            if name in todo
            else Path(str(cached_file(found.repo, name, found.revision)))
            for name in names
        ]


def check_weights(found: Listing) -> None:
    """Refuse a repository without safetensors before anything is downloaded.

    Raises:
        UnsupportedError: its weights are pickles, or GGUF files.
        LoadError: it has no weights at all.
    """
    names = found.files
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        raise UnsupportedError(
            f"{found.repo} has its weights only as pickle files ({', '.join(pickles[:3])}), which can run any code "
            "when they are read.",
            "Use a repository or revision with safetensors.",
        )
    if any(name.endswith(".gguf") for name in names):
        raise UnsupportedError(f"{found.repo} has only GGUF files.", "Load it with --engine llamacpp.")
    raise LoadError(f"{found.repo} has no weights: no *.safetensors and no *.gguf file.")
