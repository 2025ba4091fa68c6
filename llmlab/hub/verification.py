"""Checks the catalogue against the hub: names that moved, gated repositories, sizes.

`python -m llmlab.hub.verification` prints the differences, and fails if a listed file can no longer be downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from llmlab.errors import BadInputError, LoadError
from llmlab.hub import catalogue, discover, repository
from llmlab.hub.catalogue import Entry
from llmlab.hub.failures import offline
from llmlab.hub.quant_repo import QuantRepo
from llmlab.types import FORMATS

# A size that differs by more is reported.
SIZE_TOLERANCE = 0.03
_AT_ONCE = 4

What = Literal["gone", "refused", "moved", "renamed", "missing", "gated", "size"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between the catalogue and the hub.

    Attributes:
        model: the model's name in the catalogue.
        repo: the repository.
        what: gone (no such repository), refused (the hub doesn't show it), moved (the repository has another name),
            renamed (a file has), missing (a file), gated (or no longer), or size.
        text: the difference in words.
    """

    model: str
    repo: str
    what: What
    text: str

    @property
    def breaks(self) -> bool:
        """Whether a download of the listed form fails because of it."""
        return self.what in ("gone", "missing")


def verify(entries: Iterable[Entry]) -> tuple[Finding, ...]:
    """Compare catalogue entries with the hub: one request per repository, four at a time.

    Args:
        entries: the entries; local ones are skipped.

    Returns:
        The differences, in the order of the entries.

    Raises:
        LoadError: the hub can't be reached, or offline mode is on.
    """
    if offline():
        raise LoadError("The catalogue can't be checked in offline mode.", "Unset HF_HUB_OFFLINE.")
    pairs = [(entry, repo) for entry in entries for repo in entry.files]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda pair: _compare(*pair), pairs))
    return tuple(finding for findings in found for finding in findings)


def _compare(entry: Entry, repo: QuantRepo) -> list[Finding]:
    def finding(what: What, text: str) -> Finding:
        return Finding(entry.name, repo.repo, what, text)

    try:
        listing = repository.listing(repo.repo, repo.revision)
    except BadInputError as error:
        return [finding("gone", error.message)]
    except LoadError as error:
        if "can't be reached" in error.message:
            raise
        return [finding("refused", error.message)]
    out = []
    if listing.moved:
        out.append(finding("moved", f"the repository is now {listing.moved}"))
    if repo.gated is not None and listing.gated is not None and repo.gated != listing.gated:
        out.append(finding("gated", "it is gated" if listing.gated else "it is no longer gated"))
    compare = _compare_ggufs if FORMATS[repo.engine] == "gguf" else _compare_folder
    return out + [finding(what, text) for what, text in compare(entry, repo, listing.files)]


def _compare_ggufs(entry: Entry, repo: QuantRepo, files: dict[str, int]) -> list[tuple[What, str]]:
    out: list[tuple[What, str]] = []
    if repo.projector is not None and repo.projector not in files:
        out.append(("missing", f"{repo.projector} isn't there"))
    for quant in repo.quants:
        name = repo.filename(quant)
        names = [name] if name in files else discover.tagged(files, quant)
        if not names:
            out.append(("missing", f"{name} isn't there"))
            continue
        if names != [name]:
            out.append(("renamed", f"{name} is now {names[0]}"))
        out += _size(entry, repo, quant, sum(files[one] for one in names))
    return out


def _compare_folder(entry: Entry, repo: QuantRepo, files: dict[str, int]) -> list[tuple[What, str]]:
    names = [name for name in repository.folder_names(files) if name.endswith(".safetensors")]
    if not names:
        return [("missing", "it has no safetensors files")]
    return _size(entry, repo, repo.quants[0], sum(files[name] for name in names))


def _size(entry: Entry, repo: QuantRepo, quant: str, real: int) -> list[tuple[What, str]]:
    listed = entry.bytes(repo, quant)
    if not listed or not real or abs(listed - real) <= SIZE_TOLERANCE * real:
        return []
    return [("size", f"{quant} has {real:,} bytes, not {listed:,}")]


def main() -> int:
    """Check llmlab's own catalogue; returns 1 if a listed file can no longer be downloaded."""
    found = verify(entry for entry in catalogue.entries() if entry.origin == "llmlab")
    for one in found:
        sys.stdout.write(f"{one.model}: {one.repo}: {one.text}\n")
    if not found:
        sys.stdout.write("The catalogue agrees with the hub.\n")
    return int(any(one.breaks for one in found))


if __name__ == "__main__":
    sys.exit(main())
