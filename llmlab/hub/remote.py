"""Files from the Hugging Face hub, through huggingface_hub: its cache, its login, its offline switch.

Every way it can fail becomes one line with the way out. The token is never read, shown or passed on here.
`HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_HUB_CACHE` count as they are now, not only as they were at import.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmlab.errors import BadInputError, LoadError, UnsupportedError, unknown

Progress = Callable[[str, float | None], None]

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
    """A repository's top-level files with their sizes, and whether that came from the hub or from the cache."""

    repo: str
    revision: str | None
    files: dict[str, int]
    online: bool


def offline() -> bool:
    """Whether the user switched the hub off (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`)."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return bool(constants.HF_HUB_OFFLINE) or asked.upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str | None:
    """The hub that `HF_ENDPOINT` names, or None for the usual one."""
    value = os.environ.get("HF_ENDPOINT")
    return value.rstrip("/") if value else None


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
            # One request, without the retries that other calls make when there is no network.
            info = HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True, timeout=10)
        except Exception as error:
            if not _is_connection(error):
                raise
            # A hub that is down is no reason to refuse what lies in the cache.
            try:
                return _cached_listing(repo, revision)
            except LoadError:
                raise error from None
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    return Listing(repo, revision, {name: size for name, size in files.items() if "/" not in name}, online=True)


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
    from llmlab.hub.safetensors_file import weight_files

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
        progress: told "download" and how much of it is done; None shows huggingface_hub's own bar.

    Raises:
        as `listing`; BadInputError when the repository has no such file.
    """
    cached = cached_file(repo, filename, revision)
    if cached is not None:
        return cached
    found = listing(repo, revision)
    if found.online and filename not in found.files:
        hub = [name for name in sorted(found.files) if name.endswith(".gguf")]
        raise unknown("file", filename, hub or sorted(found.files), f"(in {repo})")
    from huggingface_hub import hf_hub_download

    with translated(repo, revision, filename):
        return Path(
            hf_hub_download(
                repo,
                filename,
                revision=revision,
                cache_dir=cache_dir(),
                endpoint=endpoint(),
                local_files_only=not found.online,
                tqdm_class=_bar(progress, found.files.get(filename, 0) or size),
            )
        )


def fetch_folder(repo: str, revision: str | None = None, *, progress: Progress | None = None) -> Path:
    """A model folder (configuration, tokenizer, safetensors), from the cache or downloaded into it.

    Raises:
        as `listing`; UnsupportedError when the weights are only there as pickles; LoadError when there are none.
    """
    cached = cached_folder(repo, revision)
    if cached is not None:
        return cached
    found = listing(repo, revision)
    if found.online:
        check_weights(found)
    from huggingface_hub import snapshot_download

    total = sum(size for name, size in found.files.items() if name.endswith(".safetensors"))
    with translated(repo, revision):
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache_dir(),
                endpoint=endpoint(),
                local_files_only=not found.online,
                allow_patterns=_FOLDER_FILES,
                ignore_patterns=_FOLDER_IGNORES,
                tqdm_class=_bar(progress, total),
            )
        )


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


def _bar(progress: Progress | None, size: int) -> Any:
    """A silent progress bar class that reports bytes, or None for huggingface_hub's own bars."""
    if progress is None:
        return None
    from tqdm import tqdm

    tell = progress

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self.counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            total = size or self.total or 0
            if self.counts_bytes and total:
                tell("download", min(self.n / total, 1.0))

    return Bar


# -- errors ------------------------------------------------------------------------------------


def _is_connection(error: BaseException) -> bool:
    """Whether an error (or what caused it) means that the hub could not be reached."""
    seen: BaseException | None = error
    while seen is not None:
        kinds = {kind.__name__ for kind in type(seen).__mro__}
        # huggingface_hub moved between HTTP libraries; the names of these classes stayed.
        if kinds & {"ConnectError", "ConnectionError", "TimeoutException", "ProxyError", "NetworkError"}:
            return True
        if kinds & {"RemoteProtocolError", "Timeout"}:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _hub() -> str:
    """The hub's address without a user or password that may stand in it."""
    from huggingface_hub import constants

    parts = urlsplit(endpoint() or constants.ENDPOINT)
    host = parts.hostname or "huggingface.co"
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


@contextmanager
def translated(repo: str, revision: str | None = None, filename: str | None = None) -> Iterator[None]:
    """Turn whatever huggingface_hub raises inside into one of llmlab's errors."""
    # Its retries are told as warnings on stderr, which a notebook would show beside the one clear line.
    noise = logging.getLogger("huggingface_hub")
    level = noise.level
    noise.setLevel(logging.ERROR)
    try:
        yield
    except (LoadError, BadInputError):
        raise
    except Exception as error:
        raise _translate(error, repo, revision, filename) from error
    finally:
        noise.setLevel(level)


def _translate(error: Exception, repo: str, revision: str | None, filename: str | None) -> Exception:
    from huggingface_hub import errors as hub

    at = f"{repo}@{revision}" if revision else repo
    login = "log in with: hf auth login (or set HF_TOKEN)"
    if isinstance(error, hub.GatedRepoError):
        return LoadError(
            f"{repo} is gated: its owner asks for an agreement first.",
            f"Accept it at {_hub()}/{repo}, then {login}. An ungated copy may exist under another name.",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return BadInputError(f"{repo} has no revision {revision!r}.", f"See {_hub()}/{repo}/commits/main.")
    if isinstance(error, hub.RepositoryNotFoundError):
        return BadInputError(
            f"There is no model {repo!r} on {_hub()}, or it is private.", f"Check the name; if it is private, {login}."
        )
    if isinstance(error, hub.HFValidationError):
        return BadInputError(f"{repo!r} is not a repository's name.", "It must look like hf:org/name.")
    if isinstance(error, hub.LocalEntryNotFoundError) and (offline() or not _caused_by_http(error)):
        if offline() or not _is_connection(error):
            what = f"{filename} of {at}" if filename else at
            return LoadError(
                f"{what} is not (wholly) in the hub's cache, and the hub is switched off (HF_HUB_OFFLINE).",
                "Unset HF_HUB_OFFLINE to download it, or load nano or a local path.",
            )
    elif isinstance(error, hub.EntryNotFoundError) and not isinstance(error, hub.LocalEntryNotFoundError):
        return BadInputError(f"{at} has no file {filename!r}.", f"See {_hub()}/{repo}/tree/{revision or 'main'}.")
    return _translate_other(error, at, repo, login)


def _caused_by_http(error: BaseException) -> Any:
    """The HTTP error behind an error, or None."""
    from huggingface_hub import errors as hub

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, hub.HfHubHTTPError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _translate_other(error: Exception, at: str, repo: str, login: str) -> Exception:
    http = _caused_by_http(error)
    status = getattr(getattr(http, "response", None), "status_code", None)
    if status in (401, 403):
        return LoadError(f"The hub refuses {at} (HTTP {status}).", f"Check your access at {_hub()}/{repo}; {login}.")
    if status == 429:
        return LoadError(f"The hub limits requests now (HTTP 429 for {at}).", f"Wait some minutes, or {login}.")
    if status is not None and status >= 500:
        return LoadError(f"The hub has trouble (HTTP {status} for {at}).", "Try again later; what came stays cached.")
    if _is_connection(error):
        return LoadError(
            f"{_hub()} can't be reached, and {at} is not (wholly) in the cache.",
            "Check the network or proxy, then repeat the command (a broken download goes on where it stopped), "
            "or load nano or a local path.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return LoadError(
            f"The disk is full while {at} was downloaded.", "Free some space, or set HF_HUB_CACHE to another disk."
        )
    kind = type(error).__name__
    return LoadError(f"{at} could not be fetched: {kind}: {str(error).splitlines()[0] if str(error) else kind}.")
