"""Files from the Hugging Face hub, through huggingface_hub: its cache, its login, its offline switch.

Every way it can fail becomes one line with the way out. The token is never read, shown or passed on here.
`HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_HUB_CACHE` count as they are now, not only as they were at import.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from llmlab.errors import LoadError, UnsupportedError, unknown
from llmlab.hub.failures import endpoint, is_connection, offline, retried, translated
from llmlab.types.progress import Progress

# What a model folder needs. No Python files: code from a repository is never fetched, let alone run.
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
# Other copies of the same weights (Meta's and Mistral's own layouts, ONNX exports) lie in folders or have this name.
_FOLDER_IGNORES = ["*/*", "consolidated*"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository's top-level files with their sizes, and whether that came from the hub or from the cache.

    `bases`: the repositories that it was quantized from, where the hub says so.
    """

    repo: str
    revision: str | None
    files: dict[str, int]
    online: bool
    bases: tuple[str, ...] = ()


def cache_dir() -> str | None:
    """The hub's cache folder when the environment names one now; None leaves it to huggingface_hub."""
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
        LoadError: it can't be reached, is gated, or refuses; and the cache has no copy.
    """
    if offline():
        return _cached_listing(repo, revision)
    from huggingface_hub import HfApi

    with translated(repo, revision):
        try:
            # Without the retries that other calls make when there is no network.
            api = HfApi(endpoint=endpoint())
            info = retried(lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=10))
        except Exception as error:
            if not is_connection(error):
                raise
            # A hub that is down is no reason to refuse what lies in the cache.
            try:
                return _cached_listing(repo, revision)
            except LoadError:
                raise error from None
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    top = {name: size for name, size in files.items() if "/" not in name}
    return Listing(repo, revision, top, online=True, bases=_bases(info.tags or ()))


def _bases(tags: Iterable[str]) -> tuple[str, ...]:
    """The models that a repository was quantized from, from the tags that the hub gives it."""
    mark = "base_model:quantized:"
    return tuple(tag.removeprefix(mark) for tag in tags if tag.startswith(mark))


def _cached_listing(repo: str, revision: str | None) -> Listing:
    from huggingface_hub import snapshot_download

    with translated(repo, revision):
        # "*.none" matches nothing, so that a snapshot which holds only some of the files counts too.
        folder = Path(
            snapshot_download(
                repo, revision=revision, cache_dir=cache_dir(), local_files_only=True, allow_patterns="*.none"
            )
        )
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return Listing(repo, revision, files, online=False)


def cached_file(repo: str, filename: str, revision: str | None = None) -> Path | None:
    """A file that already lies in the hub's cache, or None; no request is made."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, cache_dir=cache_dir(), revision=revision)
    return Path(found) if isinstance(found, str) else None


def cached_folder(repo: str, revision: str | None = None) -> Path | None:
    """A model folder that already lies in the hub's cache with all its weights, or None; no request is made."""
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
    """One file of a repository, from the cache or downloaded into it (a broken download goes on where it stopped).

    Args:
        repo: `org/name`.
        filename: the file's name in it.
        revision: branch, tag or commit; None is the main branch.
        size: bytes, for the progress; 0 when it isn't known.
        progress: told "download" and how much of it is done; None shows a bar of its own.

    Raises:
        as `listing`; BadInputError when the repository has no such file; LoadError when the disk has no room, or
        what came isn't what the hub says it is (it is removed then).
        PullInterrupted: Ctrl-C; the next call goes on where this one stopped.
    """
    return fetch_files(repo, [filename], revision, size=size, progress=progress)[0]


def fetch_files(
    repo: str, names: Sequence[str], revision: str | None = None, *, size: int = 0, progress: Progress | None = None
) -> list[Path]:
    """Several files of a repository (the parts of a split model), as `fetch_file`, under one progress."""
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
        as `fetch_file`; UnsupportedError when the weights are only there as pickles; LoadError when there are none.
    """
    cached = cached_folder(repo, revision)
    if cached is not None:
        return cached
    found = listing(repo, revision)
    if found.online:
        check_weights(found)
    # Weights last: a folder counts as whole once they are there.
    names = sorted(folder_files(found), key=lambda name: (name.endswith(".safetensors"), name))
    if not names:
        raise LoadError(f"{repo} is not (wholly) in the hub's cache, and the hub is switched off.")
    paths = _fetch(found, names, 0, progress)
    return paths[0].parent


def folder_files(found: Listing) -> list[str]:
    """The files of a repository that a model folder needs."""
    return [
        name
        for name in found.files
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
        raise UnsupportedError(f"{found.repo} holds GGUF files only.", "Load it with --engine llamacpp.")
    raise LoadError(f"{found.repo} has no weights: no *.safetensors and no *.gguf file.")
