"""llmlab's folders and environment variables, and the errors of failed writes."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from llmlab.errors import BadInputError, DiskError, LlmLabError

APP = "llmlab"


def cache_dir() -> Path:
    """The folder for files that can be recreated (converted models and adapters). Writers create it.

    `LLMLAB_CACHE` overrides the platform's default.

    Raises:
        DiskError: the path is invalid.
    """
    return _usable("LLMLAB_CACHE", os.environ.get("LLMLAB_CACHE") or platformdirs.user_cache_dir(APP))


def log_dir() -> Path:
    """The folder for engine logs. Writers create it. `LLMLAB_LOGS` overrides the platform's default."""
    root = os.environ.get("LLMLAB_LOGS")
    return Path(root) if root else Path(platformdirs.user_log_dir(APP))


def data_dir() -> Path:
    """The folder for the user's own data (tuned adapters, merged models, the run log). Writers create it.

    `LLMLAB_DATA` overrides the platform's default.

    Raises:
        DiskError: the path is invalid.
    """
    return _usable("LLMLAB_DATA", os.environ.get("LLMLAB_DATA") or platformdirs.user_data_dir(APP))


def _usable(setting: str, root: str) -> Path:
    """A folder's path, checked: any access below one that is too long raises OSError."""
    if max(map(len, os.fsencode(root).split(b"/"))) > 255:  # the limit of all common file systems
        raise DiskError(
            f"{root[:120]}... can't be a folder: {os.strerror(errno.ENAMETOOLONG)}.",
            f"Set {setting} to another folder.",
        )
    is_folder(Path(root), setting)  # warns if it can't be read
    return Path(root)


def exists(path: Path) -> bool:
    """Whether a user-provided path exists. False also for an invalid path (a name that is too long)."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for invalid paths


def is_file(path: Path) -> bool:
    """Whether a file is there, as far as this user can see: `Path.is_file` raises in a folder without permission."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def matching(folder: Path, pattern: str) -> list[Path]:
    """The paths in a folder that match a pattern, sorted; none if it doesn't exist or can't be read."""
    try:
        return sorted(folder.glob(pattern))
    except PermissionError:
        return []


_warned: set[Path] = set()


def is_folder(root: Path, setting: str) -> bool:
    """Whether a folder exists and can be listed. If it exists and can't, this warns, once per folder.

    Args:
        root: the folder.
        setting: the environment variable that sets it.
    """
    try:
        os.stat(f"{root}/.")  # noqa: PTH116 - the right to enter it; Path drops the dot
        os.scandir(root).close()  # the right to list it
    except PermissionError as failed:
        warn_unreadable(root, failed, setting)
        return False
    except OSError:
        return False
    return True


def warn_unreadable(root: Path, failed: OSError, setting: str) -> None:
    """Warn, once per folder, that its content is left out because it can't be read.

    Args:
        root: the folder.
        failed: why.
        setting: the environment variable that sets it.
    """
    if _first(root):
        why, hint = _reason(root / "x", "be read", setting, failed.errno or 0, failed)
        _warn(f"{root} can't be read, so its content is left out: {why}. {hint}")


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """Write a cached file that only saves time: if that fails, warn once and continue.

    Args:
        path: the file.
    """
    try:
        yield
    except OSError as failed:
        if _first(cache_dir()):
            why, hint = _reason(path, "be written", "LLMLAB_CACHE", failed.errno or 0, failed)
            _warn(f"measurements and notes aren't kept, because {path} can't be written: {why}. {hint}")


def _first(root: Path) -> bool:
    """Whether this is the first warning about a folder."""
    first = root not in _warned
    _warned.add(root)
    return first


def _warn(text: str) -> None:
    with suppress(Warning):  # with warnings as errors, too, a convenience fails nothing
        warnings.warn(f"llmlab: {text} Shown once.", RuntimeWarning, stacklevel=3)


@contextmanager
def writing(
    path: Path, *, action: str = "be written", setting: str = "", error: type[LlmLabError] = DiskError
) -> Iterator[None]:
    """Convert operating system errors of writes in the block, or reads, to an llmlab error that names the folder.

    Args:
        path: the path to show in the message. The path in the system's error may be a temporary one that the user
            doesn't know.
        action: what can't be done with it.
        setting: the environment variable that sets its folder; "" derives it from the path.
        error: the error's class.

    Raises:
        DiskError: or `error`.
        BadInputError: the path is invalid (it has a NUL character, for example).
    """
    try:
        os.fsencode(path)
        if "\0" in str(path):
            raise BadInputError(f"{str(path)!r} isn't a valid path: it has a NUL character.")
    except UnicodeEncodeError:
        raise BadInputError(
            f"{str(path)!r} isn't a valid path: it has characters that file names can't have."
        ) from None
    try:
        yield
    except LlmLabError:
        raise
    except Exception as failed:
        number = _number(failed)
        if number is None:
            raise
        why, hint = _reason(path, action, setting, number, failed)
        shown = str(path) if len(str(path)) < 300 else f"{str(path)[:120]}...{str(path)[-60:]}"
        converted = DiskError(f"{shown} can't {action}: {why}.", hint)
        raise converted if error is DiskError else error(converted.message, converted.hint) from failed


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path next to a file; what the block writes there replaces the file when the block ends.

    Readers see the old content or the new, never a part. If the block fails, the file is unchanged and nothing is left
    behind. The folder is created. A link stays, and the file that it leads to is replaced; a file that exists keeps its
    mode; a device or a pipe is written to directly.

    Args:
        path: the file.
        durable: the new content is on the disk when this returns, also after a power cut.

    Raises:
        OSError: it can't be written. Callers convert it with `writing`, or continue without the file.

    Example:
        >>> with config.replacing(path) as part:
        ...     part.write_text("{}", encoding="utf-8")
    """
    mode = _mode(path)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # 40 characters have at most 160 bytes; a name may have 255. Not mkstemp, whose files only their owner can read.
    part = path.parent / f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        if mode is not None:  # a private file is private from the first byte
            part.touch(stat.S_IMODE(mode) & 0o777 | stat.S_IWUSR, exist_ok=False)
        yield part
        if mode is not None:
            part.chmod(stat.S_IMODE(mode) & 0o777)
        if durable:
            _sync(part, os.O_RDWR)
        part.replace(path)
        if durable and os.name == "posix":
            _sync(path.parent, os.O_RDONLY)
    finally:
        part.unlink(missing_ok=True)


def _mode(path: Path) -> int | None:
    """Type and permissions of a file; None if there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def scratch(prefix: str = "llmlab-") -> Iterator[Path]:
    """A temporary folder that is deleted afterwards.

    Raises:
        DiskError: no temporary folder is writable.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as failed:
        raise DiskError(
            f"No temporary folder is writable: {failed.strerror or failed}.", "Set TMPDIR to a writable folder."
        ) from failed
    with made as folder:
        yield Path(folder)


def _number(failed: BaseException) -> int | None:
    """The errno of an error; None if it isn't an I/O error."""
    if isinstance(failed, OSError):
        return failed.errno or 0
    # safetensors writes in Rust: "I/O error: No space left on device (os error 28)".
    text = str(failed)
    if type(failed).__name__ == "SafetensorError" and "(os error " in text:
        return int(text.rpartition("(os error ")[2].partition(")")[0])
    return None


def _reason(path: Path, action: str, setting: str, number: int, failed: BaseException) -> tuple[str, str]:
    """The reason for a failed write, and the suggested fix."""
    for name, root in (("LLMLAB_CACHE", cache_dir), ("LLMLAB_LOGS", log_dir), ("LLMLAB_DATA", data_dir)):
        with suppress(DiskError):
            setting = setting or (name if path.is_relative_to(root()) else "")
    folder = _nearest_existing(path.parent)
    elsewhere = f", or set {setting} to another folder" if setting else ", or use another folder"
    if number in (errno.ENOSPC, errno.EDQUOT):
        why, hint = f"the disk of {folder} is full", f"Free some space there{elsewhere}."
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        needed = "readable" if action == "be read" else "writable"
        why, hint = os.strerror(number), f"Make {folder} {needed}{elsewhere}."
    elif number in (errno.ENOTDIR, errno.EEXIST):
        blocks = next((one for one in (path, *path.parents) if exists(one) and not one.is_dir()), path)
        why, hint = f"{blocks} is a file, but must be a folder", f"Move it away{elsewhere}."
    elif number == errno.ENAMETOOLONG:
        why, hint = os.strerror(number), "Use a shorter name."
    else:
        other = getattr(failed, "filename", None)
        why = os.strerror(number) if number else str(failed)
        why += f" ({other})" if other and str(other) != str(path) else ""
        hint = f"Check the disk of {folder}{elsewhere}."
    return why, hint


def _nearest_existing(folder: Path) -> Path:
    """The nearest folder that exists."""
    for one in (folder, *folder.parents):
        if os.path.isdir(one):  # noqa: PTH112 - Path.is_dir raises for names that are too long
            return one
    return folder
