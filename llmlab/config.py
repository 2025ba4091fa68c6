"""Where llmlab keeps its files, the few settings that come from the environment, and what a failed write says."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from llmlab.errors import BadInputError, DiskError, LlmLabError

APP = "llmlab"


def cache_dir() -> Path:
    """The folder for what can be made again (converted models, converted adapters); whoever writes there makes it.

    `LLMLAB_CACHE` overrides the platform's own place.

    Raises:
        DiskError: it is no path that can be.
    """
    return _usable("LLMLAB_CACHE", os.environ.get("LLMLAB_CACHE") or platformdirs.user_cache_dir(APP))


def log_dir() -> Path:
    """The folder for engine logs; whoever writes there makes it. `LLMLAB_LOGS` overrides the platform's own place."""
    root = os.environ.get("LLMLAB_LOGS")
    return Path(root) if root else Path(platformdirs.user_log_dir(APP))


def data_dir() -> Path:
    """The folder for what the user made and would miss (tuned adapters, merged models); whoever writes there makes it.

    `LLMLAB_DATA` overrides the platform's own place.

    Raises:
        DiskError: it is no path that can be.
    """
    return _usable("LLMLAB_DATA", os.environ.get("LLMLAB_DATA") or platformdirs.user_data_dir(APP))


def _usable(setting: str, root: str) -> Path:
    """A folder's path; whoever looks for a file under one that is too long would get an OSError."""
    if max(map(len, os.fsencode(root).split(b"/"))) > 255:  # every common file system's limit
        raise DiskError(
            f"{root[:120]}... can't be a folder: {os.strerror(errno.ENAMETOOLONG)}.",
            f"Set {setting} to another folder.",
        )
    return Path(root)


def exists(path: Path) -> bool:
    """Whether something is at a path that a user typed; False, too, where nothing can be (a name that is too long)."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for those


@contextmanager
def writing(
    path: Path, *, action: str = "be written", setting: str = "", error: type[LlmLabError] = DiskError
) -> Iterator[None]:
    """Turn what the operating system says of a write inside into an error of llmlab's that names the folder.

    Args:
        path: what is written, for the message. The file that the system names instead isn't always the one that the
            user knows (a temporary name).
        action: what can't be done with it.
        setting: the environment variable that moves it; "" finds out from the path.
        error: the error's class.

    Raises:
        DiskError: or `error`.
        BadInputError: the path is none (it has a NUL character, say).
    """
    try:
        os.fsencode(path)
        if "\0" in str(path):
            raise BadInputError(f"{str(path)!r} is no path: it has a NUL character.")
    except UnicodeEncodeError:
        raise BadInputError(f"{str(path)!r} is no path: it has characters that no file name can have.") from None
    try:
        yield
    except LlmLabError:
        raise
    except Exception as failed:
        number = _number(failed)
        if number is None:
            raise
        why, hint = _reason(path, setting, number, failed)
        shown = str(path) if len(str(path)) < 300 else f"{str(path)[:120]}...{str(path)[-60:]}"
        said = DiskError(f"{shown} can't {action}: {why}.", hint)
        raise said if error is DiskError else error(said.message, said.hint) from failed


@contextmanager
def scratch(prefix: str = "llmlab-") -> Iterator[Path]:
    """A temporary folder that is deleted afterwards.

    Raises:
        DiskError: there is no temporary folder that can be written.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as failed:
        raise DiskError(
            f"No temporary folder can be written: {failed.strerror or failed}.", "Set TMPDIR to one that can."
        ) from failed
    with made as folder:
        yield Path(folder)


def _number(failed: BaseException) -> int | None:
    """The operating system's number of an error; None when it isn't one of input and output."""
    if isinstance(failed, OSError):
        return failed.errno or 0
    # safetensors writes in Rust: "I/O error: No space left on device (os error 28)".
    text = str(failed)
    if type(failed).__name__ == "SafetensorError" and "(os error " in text:
        return int(text.rpartition("(os error ")[2].partition(")")[0])
    return None


def _reason(path: Path, setting: str, number: int, failed: BaseException) -> tuple[str, str]:
    """Why it can't be done, and the suggested fix."""
    for name, root in (("LLMLAB_CACHE", cache_dir), ("LLMLAB_LOGS", log_dir), ("LLMLAB_DATA", data_dir)):
        with suppress(DiskError):
            setting = setting or (name if path.is_relative_to(root()) else "")
    folder = _there(path.parent)
    elsewhere = f", or set {setting} to another folder" if setting else ", or take another folder"
    if number in (errno.ENOSPC, errno.EDQUOT):
        why, hint = f"the disk of {folder} is full", f"Free some space there{elsewhere}."
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        why, hint = os.strerror(number), f"Make {folder} writable{elsewhere}."
    elif number in (errno.ENOTDIR, errno.EEXIST):
        blocks = next((one for one in (path, *path.parents) if one.is_file()), path)
        why, hint = f"{blocks} is a file, and a folder has to be there", f"Move it away{elsewhere}."
    elif number == errno.ENAMETOOLONG:
        why, hint = os.strerror(number), "Take a shorter name."
    else:
        other = getattr(failed, "filename", None)
        why = os.strerror(number) if number else str(failed)
        why += f" ({other})" if other and str(other) != str(path) else ""
        hint = f"Check the disk of {folder}{elsewhere}."
    return why, hint


def _there(folder: Path) -> Path:
    """The nearest folder that exists."""
    for one in (folder, *folder.parents):
        if os.path.isdir(one):  # noqa: PTH112 - Path.is_dir raises for names that are too long
            return one
    return folder
