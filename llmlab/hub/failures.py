"""Translates errors of the hub and its client into one-line messages with a suggested fix, without secrets.

The token is never read here. Text quoted from outside passes through `scrub` first.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llmlab.errors import BadInputError, LoadError

T = TypeVar("T")

# Temporary HTTP statuses, and how often and after how long to retry.
PASSING = frozenset({408, 429, 500, 502, 503, 504})
TRIES = 3
WAIT_S = 1.0
LONGEST_WAIT_S = 20.0

# A hub token, the value after "Bearer", credentials in a URL, the query of a signed URL.
_SECRETS = (
    (re.compile(r"hf_[A-Za-z0-9_]{6,}"), "hf_..."),
    (re.compile(r"(?i)(bearer)\s+\S+"), r"\1 ..."),
    (re.compile(r"(https?://)[^/\s@]+@"), r"\1"),
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?..."),
)


def scrub(text: str) -> str:
    """A text from outside without tokens, passwords and signed URLs."""
    for pattern, put in _SECRETS:
        text = pattern.sub(put, text)
    return text


def offline() -> bool:
    """Whether the hub is in offline mode (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`)."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return bool(constants.HF_HUB_OFFLINE) or asked.upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str | None:
    """The hub URL in `HF_ENDPOINT`, or None for the default."""
    value = os.environ.get("HF_ENDPOINT")
    return value.rstrip("/") if value else None


def is_connection(error: BaseException) -> bool:
    """Whether an error (or its cause) means that the hub could not be reached."""
    seen: BaseException | None = error
    while seen is not None:
        kinds = {kind.__name__ for kind in type(seen).__mro__}
        # Compared by name: huggingface_hub changed its HTTP library, but these class names are the same in both.
        if kinds & {"ConnectError", "ConnectionError", "TimeoutException", "ProxyError", "NetworkError"}:
            return True
        if kinds & {"RemoteProtocolError", "Timeout"}:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, or None."""
    return getattr(getattr(_caused_by_http(error), "response", None), "status_code", None)


def retry_after(error: BaseException | None) -> float | None:
    """The seconds in the Retry-After header, or None without one."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


def wait_before(error: BaseException, tries: int) -> float | None:
    """Seconds to wait before retrying, or None if a retry is pointless.

    Temporary statuses (408, 429, 5xx) are retried after 1, 2, 4 seconds; if the hub requests a wait of more than 20
    seconds, the error is raised instead.

    Args:
        error: the error of the last attempt.
        tries: number of attempts so far.
    """
    if status_of(error) not in PASSING:
        return None
    asked = retry_after(_caused_by_http(error))
    if asked is not None:
        return asked if asked <= LONGEST_WAIT_S else None
    return WAIT_S * 2.0 ** (tries - 1)


def retried(call: Callable[[], T]) -> T:
    """Call the hub, retrying on temporary statuses."""
    for tries in range(1, TRIES):
        try:
            return call()
        except Exception as error:
            wait = wait_before(error, tries)
            if wait is None:
                raise
            time.sleep(wait)
    return call()


def address() -> str:
    """The hub's URL, without credentials."""
    from huggingface_hub import constants

    parts = urlsplit(endpoint() or constants.ENDPOINT)
    host = parts.hostname or "huggingface.co"
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


@contextmanager
def translated(repo: str, revision: str | None = None, filename: str | None = None) -> Iterator[None]:
    """Translate any exception of huggingface_hub into one of llmlab's errors."""
    # huggingface_hub logs retries as warnings on stderr, which a notebook would show next to the error.
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
    login = (
        "log in with: hf auth login (in a notebook: import huggingface_hub; huggingface_hub.login()), or set HF_TOKEN"
    )
    if isinstance(error, hub.GatedRepoError):
        known = getattr(getattr(error, "response", None), "status_code", None) == 403
        how = "with the account that you are logged in with" if known else f"then {login}"
        return LoadError(
            f"{repo} is gated: its owner requires accepting an agreement first.",
            f"Accept it at {address()}/{repo}, {how}. An ungated copy may exist under another name: "
            "see %llm show MODEL --discover.",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return BadInputError(f"{repo} has no revision {revision!r}.", f"See {address()}/{repo}/commits/main.")
    if isinstance(error, hub.RepositoryNotFoundError):
        return BadInputError(
            f"There is no model {repo!r} on {address()}, or it is private.",
            f"Check the name; if it is private, {login}.",
        )
    if isinstance(error, hub.HFValidationError):
        return BadInputError(f"{repo!r} is not a repository name.", "The format is hf:org/name.")
    if isinstance(error, hub.LocalEntryNotFoundError) and (offline() or not _caused_by_http(error)):
        if offline() or not is_connection(error):
            what = f"{filename} of {at}" if filename else at
            return LoadError(
                f"{what} is not completely in the hub's cache, and HF_HUB_OFFLINE is set.",
                "Unset HF_HUB_OFFLINE to download it, or load nano or a local path.",
            )
    elif isinstance(error, hub.EntryNotFoundError) and not isinstance(error, hub.LocalEntryNotFoundError):
        return BadInputError(f"{at} has no file {filename!r}.", f"See {address()}/{repo}/tree/{revision or 'main'}.")
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
        return LoadError(f"The hub refuses {at} (HTTP {status}).", f"Check your access at {address()}/{repo}; {login}.")
    if status == 429:
        wait = retry_after(http)
        when = f"Wait {wait:.0f} seconds" if wait else "Wait a few minutes"
        return LoadError(f"The hub's rate limit was reached (HTTP 429 for {at}).", f"{when}, or {login}.")
    if status is not None and status >= 500:
        return LoadError(f"Hub server error (HTTP {status} for {at}).", "Try again later; downloaded data was kept.")
    if is_connection(error):
        return LoadError(
            f"{address()} can't be reached, and {at} is not completely in the cache.",
            "Check the network or proxy, then repeat the command (a partial download is resumed), "
            "or load nano or a local path.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return LoadError(
            f"The disk became full while downloading {at}.",
            "Free some space (%llm models lists cached files, %llm rm deletes them) and pull again to resume. "
            "Or set HF_HUB_CACHE to another disk.",
        )
    if isinstance(error, OSError) and error.filename is not None and error.errno:
        return LoadError(
            f"{at} could not be downloaded: {error.filename} can't be written: {os.strerror(error.errno)}.",
            "Make the hub's cache writable, or set HF_HUB_CACHE to another folder.",
        )
    kind = type(error).__name__
    words = scrub(str(error)).splitlines()
    return LoadError(f"{at} could not be downloaded: {kind}: {words[0] if words else kind}.")
