"""All errors shown to users: one line with what happened, why, and a suggested fix.

`hint` (the suggested fix) is separate from the message, so that a notebook, a terminal
and a widget can each format the two.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

# An unknown name is answered with the list of known ones if there are at most this many.
LISTED = 8


class LlmLabError(Exception):
    """Base of all llmlab errors.

    Args:
        message: what happened and why, in one line.
        hint: a suggested fix: known names, the closest match, or a command.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: shows one line instead of a traceback (the cell still fails)."""
        return [f"{type(self).__name__}: {self}"]


class BadInputError(LlmLabError, ValueError):
    """An invalid argument, option or prompt."""


class UnknownNameError(BadInputError):
    """An unknown name. `known` lists the known names; `closest` is the best match, or None."""

    def __init__(
        self, message: str, hint: str = "", *, known: tuple[str, ...] = (), closest: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.known = known
        self.closest = closest


class UnsupportedError(BadInputError):
    """The engine doesn't support this (by its declared capabilities); the hint names an alternative."""


class ChoiceError(BadInputError):
    """Several untrusted authors publish this quant and one must be chosen. `offers` lists them."""

    def __init__(self, message: str, hint: str = "", *, offers: tuple[Any, ...] = ()) -> None:
        super().__init__(message, hint)
        self.offers = offers


class LoadError(LlmLabError, RuntimeError):
    """A model couldn't be loaded; the session is unchanged. `log_tail`: the last lines of the engine's log."""

    def __init__(self, message: str, hint: str = "", *, log_tail: str = "") -> None:
        super().__init__(message, hint)
        self.log_tail = log_tail

    def _render_traceback_(self) -> list[str]:
        lines = super()._render_traceback_()
        if self.log_tail:
            lines += ["", "Last lines of the engine's log (full log: %llm logs):", *self.log_tail.splitlines()]
        return lines


class EngineMissingError(LoadError):
    """The engine's package isn't installed, or can't be imported."""


class DoesNotFitError(LoadError):
    """The model's estimated memory exceeds the free memory. `--force` / `force=True` overrides."""


class UnloadedError(LlmLabError, RuntimeError):
    """The model was unloaded, or replaced by another under the same name."""


class GenerationError(LlmLabError, RuntimeError):
    """The engine failed during generation. The message says whether the model is still usable."""


class NotRecordedError(GenerationError):
    """Recorded answers are replayed, and this request isn't among them. Says how it differs from the nearest one."""


class DiskError(LlmLabError, OSError):
    """A file or folder can't be written or deleted: a full disk, no permission, a name too long, a file in the way."""


class TuneError(LlmLabError, RuntimeError):
    """Training failed (the loss became NaN or infinite); nothing was saved or attached."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a generation. `partial` is the partial completion, or None.

    A KeyboardInterrupt, so that it stops a loop of calls.
    """

    def __init__(self, partial: Any = None) -> None:
        super().__init__("interrupted")
        self.partial = partial

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted: nothing was kept." if self.partial is None else "Interrupted."]


class PullInterrupted(Interrupted):
    """Ctrl-C during a download. The partial file is kept and the next pull resumes it. `received`: bytes so far."""

    def __init__(self, received: int = 0) -> None:
        super().__init__(None)
        self.received = received

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted: the partial download was kept. Pull or load again to resume it."]


class JobInterrupted(Interrupted):
    """Ctrl-C during `llmlab.map`. `rows` are kept in the folder `path`, and the same call goes on from there."""

    def __init__(self, rows: int = 0, path: Any = None) -> None:
        super().__init__(None)
        self.rows = rows
        self.path = path

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self.rows:,} rows are kept in {self.path}. The same call goes on from there."]


def unknown(kind: str, name: object, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for an unknown name.

    Args:
        kind: the kind of name ("model", "engine", "option").
        name: the given name, or whatever was given in its place.
        known: the known names.
        hint: a further suggestion, appended to the list.

    Returns:
        An error with the closest match, and the known names: all of up to eight, otherwise the closest three.
    """
    names = tuple(known)
    lowered = {n.lower(): n for n in names}
    given = str(name).lower()
    match = difflib.get_close_matches(given, list(lowered), n=1, cutoff=0.5)
    closest = lowered[match[0]] if match else None
    parts = []
    if closest is not None:
        parts.append(f"Did you mean {closest!r}?")
    if not names:
        parts.append(f"There is no known {kind}.")
    elif len(names) <= LISTED:
        parts.append(f"Known: {', '.join(names)}.")
    else:
        nearest = difflib.get_close_matches(given, list(lowered), n=3, cutoff=0.0)
        parts.append(f"Closest of {len(names)}: {', '.join(lowered[one] for one in nearest)}.")
    if hint:
        parts.append(hint)
    return UnknownNameError(f"Unknown {kind} {name!r:.200}.", " ".join(parts), known=names, closest=closest)
