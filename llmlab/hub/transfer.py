"""Downloads a file into the hub's cache: resumable, verified, with one writer per part file.

Why `hf_hub_download` doesn't do the transfer (huggingface_hub 2.4, `file_download._download_to_tmp_and_move`): it gives
its part a new name for each download and deletes it in a `finally`, so an interrupt loses the received bytes; over
HTTPS it checks the size, not the checksum; hf_xet writes a file's chunks in any order, so its part isn't a prefix that
a later download could resume from, and its chunk cache is off by default. `hf_hub_download` does the rest: it links the
finished blob into the snapshot, links a file that another repository's copy provides, and downloads from mirrors whose
etags aren't checksums.

Parts: `blobs/<etag>.incomplete` is an unclaimed part, at the path where the hub's own tools look for parts. A download
claims it by an atomic rename to a unique name (`<etag>.<machine>-<pid>-<random>.incomplete`), writes only to that file,
and renames it back on failure. Two processes therefore never write to one file, even without working locks: `flock`
silently succeeds for every caller on some Lustre, GPFS and NFS mounts (huggingface_hub pull request 4228). The lock
that huggingface_hub also takes only avoids a second download of the same file. The etag is the SHA-256 of a large file
and git's SHA-1 of a small one (https://huggingface.co/docs/hub/storage-backends).
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import psutil

from llmlab import config
from llmlab.errors import LoadError, PullInterrupted
from llmlab.hub import failures
from llmlab.hub.failures import endpoint, retried, translated
from llmlab.types.progress import Progress

# The hub's CDN refuses a single request for more than 50 GB.
PIECE = 16 * 10**9
CHUNK = 2**20
# Attempts without a new byte before giving up; the part is kept.
TRIES = 5
TIMEOUT_S = 30.0
# A part that another machine hasn't written to for this long may be claimed.
STALE_S = 86400.0


class DownloadMeter:
    """The progress of a download over all its files.

    Args:
        progress: called with ("download", fraction); None shows a bar on stderr (a line every 10 s if not a terminal).
        total: bytes of all files; 0 if unknown.
        title: the bar's title.
    """

    def __init__(self, progress: Progress | None, total: int, title: str) -> None:
        self.total = total
        self.done = 0
        self._tell = progress
        self._bar: Any = None
        if progress is None:
            from tqdm import tqdm

            every = 0.1 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(total=total or None, unit="B", unit_scale=True, desc=title, mininterval=every)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int) -> None:
        """Count received bytes (negative: bytes that were discarded)."""
        self.done += count
        self.show()
        if self._bar is not None:
            self._bar.update(count)

    def show(self, more: int = 0) -> None:
        """Report the progress, plus `more` bytes that another process has received so far."""
        if self._tell is not None:
            self._tell("download", min((self.done + more) / self.total, 1.0) if self.total else None)


def cache_root() -> Path:
    """The hub's cache folder."""
    from huggingface_hub import constants

    from llmlab.hub.repository import cache_dir

    return Path(cache_dir() or constants.HF_HUB_CACHE)


def store(repo: str) -> Path:
    """A model repository's folder in the cache, whether it exists or not."""
    return cache_root() / f"models--{repo.replace('/', '--')}"


def check_room(what: str, sizes: Mapping[str, int]) -> None:
    """Check that the cache's disk has room for a download.

    Args:
        what: the name of the download, for the message.
        sizes: bytes by file; existing parts are subtracted.

    Raises:
        LoadError: there isn't enough free space.
    """
    # huggingface_hub's own parts (etag.random.incomplete) can't be resumed.
    parts: dict[str, int] = {}
    with config.writing(cache_root() / "x", error=LoadError, setting="HF_HUB_CACHE"):
        for part in store(what).glob("blobs/*.incomplete"):
            if found := _PART.fullmatch(part.name):
                parts[found["etag"]] = max(parts.get(found["etag"], 0), _size(part))
        needed = sum(sizes.values()) - sum(parts.values())
        place = cache_root()
        while not place.exists() and place != place.parent:
            place = place.parent
        free = shutil.disk_usage(place).free
    if needed > free:
        raise LoadError(
            f"{what} needs {needed / 1e6:,.0f} MB more, and the disk of {cache_root()} has {free / 1e6:,.0f} MB free.",
            "Free some space (%llm models lists cached files, %llm rm deletes them), use a smaller quant, or set "
            "HF_HUB_CACHE to another disk.",
        )


def fetch(repo: str, filename: str, revision: str | None, meter: DownloadMeter) -> Path:
    """Download one file into the cache (resuming an existing part) and verify it.

    Returns:
        Its path in the cache's snapshot.

    Raises:
        LoadError: the hub refuses or can't be reached, the disk is full, or the checksum is wrong.
        BadInputError: there is no such file.
        PullInterrupted: Ctrl-C; the part is kept.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(repo, filename, revision=revision, endpoint=endpoint())
    before = meter.done
    with translated(repo, revision, filename):
        facts = retried(lambda: get_hf_file_metadata(url, timeout=TIMEOUT_S, endpoint=endpoint()))
        known = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", facts.etag or "")
        shared = facts.xet_file_data is not None and _in_shared_store(repo, filename, revision)
        # For a mirror whose etags aren't checksums, or a file available from another repository's copy, use the client.
        if known and facts.etag and facts.size is not None and not shared:
            pinned = hf_hub_url(repo, filename, revision=facts.commit_hash or revision, endpoint=endpoint())
            _bring(pinned, _Blob(repo, filename, facts.etag, facts.size), meter)
        path = hf_hub_download(
            repo,
            filename,
            revision=revision,
            cache_dir=str(cache_root()),
            endpoint=endpoint(),
            tqdm_class=_silent(),
        )
    meter.add(before + (facts.size or 0) - meter.done)
    return Path(path)


def _in_shared_store(repo: str, filename: str, revision: str | None) -> bool:
    """Whether the cache has the same content from another repository, which the client links instead."""
    from huggingface_hub import hf_hub_download

    found: Any = hf_hub_download(
        repo, filename, revision=revision, cache_dir=str(cache_root()), endpoint=endpoint(), dry_run=True
    )
    return bool(found.is_cached)


# A part's name: unclaimed, or with the machine, process and download that claimed it.
_PART = re.compile(r"(?P<etag>[0-9a-f]+)(?:\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8})?\.incomplete")
# The parts that this process is writing to.
_claimed: set[Path] = set()


class _Blob:
    """A file's content in the cache: its path, size and checksum."""

    def __init__(self, repo: str, filename: str, etag: str, size: int) -> None:
        self.repo, self.filename, self.etag, self.size = repo, filename, etag, size
        self.path = store(repo) / "blobs" / etag
        self.rest = self.path.with_name(f"{etag}.incomplete")
        self.part = self.path.with_name(f"{etag}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.incomplete")
        self.lock = cache_root() / ".locks" / store(repo).name / f"{etag}.lock"

    def hasher(self) -> Any:
        if len(self.etag) == 64:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)

    def received(self) -> int:
        """The bytes of the largest part of any process."""
        return max((_size(part) for part in self.path.parent.glob(f"{self.etag}*.incomplete")), default=0)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Claim `part` for this download, starting from a part that no process writes to; release it at the end.

        A part that was finished (renamed to `path`) or removed meanwhile needs no release.
        """
        _claimed.add(self.part)
        try:
            for idle in sorted(filter(_is_idle, self._parts()), key=_size, reverse=True):
                with suppress(FileNotFoundError):  # another process was faster
                    idle.rename(self.part)
                    break
            yield
        finally:
            with suppress(FileNotFoundError):
                if not self.path.exists() and _size(self.part) >= max(_size(self.rest), 1):
                    self.part.replace(self.rest)
                else:
                    self.part.unlink()
            _claimed.discard(self.part)

    def check_own(self) -> None:
        """Check that the part still has this download's name.

        Raises:
            FileNotFoundError: another process claimed it, or it was deleted.
        """
        if not self.part.exists():
            raise FileNotFoundError(errno.ENOENT, "the part of this download is gone", str(self.part))

    def _parts(self) -> Iterator[Path]:
        for part in self.path.parent.glob(f"{self.etag}*.incomplete"):
            if _PART.fullmatch(part.name):
                yield part


def _is_idle(part: Path) -> bool:
    """Whether a part is unclaimed, or its process ended without releasing it (SIGKILL, a power cut).

    A process on another machine (or on this one before a reboot) can't be looked up: its part counts as idle a day
    after the last write; `_Blob.check_own` keeps a process that was suspended that long from writing.
    """
    found = _PART.fullmatch(part.name)
    if found is None or part in _claimed:
        return False
    if found["pid"] is None:
        return True
    if found["machine"] != _machine():
        with suppress(OSError):
            return time.time() - part.stat().st_mtime > STALE_S
        return False
    pid = int(found["pid"])
    return pid == os.getpid() or not psutil.pid_exists(pid)


@functools.cache
def _machine() -> str:
    """Eight hex digits identifying the machine and the container in which process ids are unique."""
    known = [platform.node(), f"{uuid.getnode():x}"]
    for file, read in (("/proc/sys/kernel/random/boot_id", Path.read_text), ("/proc/self/ns/pid", os.readlink)):
        with suppress(OSError):
            known.append(str(read(Path(file))))
    return hashlib.sha256(" ".join(known).encode()).hexdigest()[:8]


def _bring(url: str, blob: _Blob, meter: DownloadMeter) -> None:
    """Download a blob unless it exists; where locks work, one process downloads and the others wait for it."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    blob.part.parent.mkdir(parents=True, exist_ok=True)
    blob.lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        while not blob.path.exists():
            try:
                with WeakFileLock(blob.lock, timeout=0.3):
                    if not blob.path.exists():
                        with blob.claim():
                            _download(url, blob, meter)
            except Timeout:
                meter.show(blob.received())
    except KeyboardInterrupt:
        raise PullInterrupted(_size(blob.rest)) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _download(url: str, blob: _Blob, meter: DownloadMeter) -> None:
    resumed = _size(blob.part) > 0
    if not _fill(url, blob, meter) and not (resumed and _fill(url, blob, meter)):
        raise LoadError(
            f"{blob.filename} of {blob.repo} has a wrong checksum. The bad file was removed.",
            "Pull again; if the error persists, a proxy or mirror is changing the file.",
        )
    blob.part.replace(blob.path)


def _fill(url: str, blob: _Blob, meter: DownloadMeter) -> bool:
    """Complete the part and return whether its checksum is right; a wrong part is removed."""
    digest = blob.hasher()
    with blob.part.open("a+b", buffering=0) as out:
        have = out.seek(0, os.SEEK_END)
        if have > blob.size:
            have = out.truncate(0)
        out.seek(0)
        while chunk := out.read(CHUNK):
            digest.update(chunk)
        meter.add(have)
        digest = _stream(url, blob, out, digest, meter)
        right = out.seek(0, os.SEEK_END) == blob.size and digest.hexdigest() == blob.etag
        if not right:
            meter.add(-out.seek(0, os.SEEK_END))
    if not right:
        blob.part.unlink(missing_ok=True)
    return right


def _stream(url: str, blob: _Blob, out: BinaryIO, digest: Any, meter: DownloadMeter) -> Any:
    """Append the missing bytes, resuming after every disconnect; returns the digest of the complete file."""
    tries, have, wrote = 0, out.seek(0, os.SEEK_END), time.time()
    while have < blob.size:
        began, wait = have, None
        try:
            for chunk, complete in _chunks(url, have, min(have + PIECE, blob.size) - 1):
                if time.time() - wrote > STALE_S / 2:  # the machine was suspended
                    blob.check_own()
                if complete and have:  # the server ignored the range and sent the complete file
                    meter.add(-have)
                    have, digest = out.truncate(0), blob.hasher()
                _write(out, chunk[: blob.size - have])
                digest.update(chunk[: blob.size - have])
                meter.add(min(len(chunk), blob.size - have))
                have, wrote = out.seek(0, os.SEEK_END), time.time()
        except Exception as error:
            tries = tries + 1 if have <= began else 1
            wait = failures.wait_before(error, tries)
            if wait is None and failures.is_connection(error) and failures.status_of(error) is None:
                wait = failures.WAIT_S * 2.0 ** (tries - 1)
            if wait is None or tries >= TRIES:
                raise
        else:
            tries = tries + 1 if have <= began else 0
            if tries >= TRIES:
                break
        if wait:
            time.sleep(wait)
    return digest


def _write(out: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]


def _chunks(url: str, start: int, end: int) -> Any:
    """The bytes of a range, in pieces: (piece, whether it is the first one of a complete file sent instead)."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    # Resolve the URL again for each request: the signed URL that it redirects to expires during a long download.
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{end}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        complete = response.status_code == 200
        # Chunks as received: with a fixed chunk size, a broken connection would lose up to that many bytes.
        for chunk in response.iter_bytes():
            yield chunk, complete
            complete = False


def _silent() -> Any:
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]
        """A progress bar that shows nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent
