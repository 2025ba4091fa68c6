"""Every error a user can meet: one line that says what, why and the way out.

The classes carry a `hint` (the way out) apart from the message, so that a notebook, a terminal
and a widget can each show both in their own form.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class LlmLabError(Exception):
    """Base of all llmlab errors.

    Args:
        message: what went wrong and why, in one line.
        hint: the way out: known names, the closest match, or the command to run.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: show one clean line instead of a traceback (the cell still fails)."""
        return [f"{type(self).__name__}: {self}"]


class BadInputError(LlmLabError, ValueError):
    """An argument, option or prompt that can't be used as given."""


class UnknownNameError(BadInputError):
    """A name that isn't among the known ones. `known` lists them, `closest` is the nearest or None."""

    def __init__(
        self, message: str, hint: str = "", *, known: tuple[str, ...] = (), closest: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.known = known
        self.closest = closest


class UnsupportedError(BadInputError):
    """The engine can't do this (declared in its capabilities); the hint names what can."""


class ChoiceError(BadInputError):
    """Several strangers offer what was asked for, and the user must say whose. `offers`: what there is."""

    def __init__(self, message: str, hint: str = "", *, offers: tuple[Any, ...] = ()) -> None:
        super().__init__(message, hint)
        self.offers = offers


class LoadError(LlmLabError, RuntimeError):
    """A model could not be loaded; the session is as it was. `log_tail` holds the engine's last lines."""

    def __init__(self, message: str, hint: str = "", *, log_tail: str = "") -> None:
        super().__init__(message, hint)
        self.log_tail = log_tail

    def _render_traceback_(self) -> list[str]:
        lines = super()._render_traceback_()
        if self.log_tail:
            lines += ["", "Last lines of the engine's log (all of it: %llm logs):", *self.log_tail.splitlines()]
        return lines


class EngineMissingError(LoadError):
    """The engine's package isn't installed, or can't be imported."""


class DoesNotFitError(LoadError):
    """The estimate says the model needs more memory than is free. `--force` / `force=True` overrides."""


class UnloadedError(LlmLabError, RuntimeError):
    """The model was unloaded, or replaced by another under the same name."""


class GenerationError(LlmLabError, RuntimeError):
    """The engine failed while it generated; other requests and the model are unharmed where it says so."""


class DiskError(LlmLabError, OSError):
    """A file or folder can't be written or deleted: a full disk, no permission, a name too long, a file in the way."""


class TuneError(LlmLabError, RuntimeError):
    """A training that can't go on (the loss is no number any more); nothing was kept or attached."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a generation. `partial` holds what was generated until then.

    Still a KeyboardInterrupt, so that a loop of calls stops as any Python loop does.
    """

    def __init__(self, partial: Any = None) -> None:
        super().__init__("interrupted")
        self.partial = partial

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted: nothing half-done was kept." if self.partial is None else "Interrupted."]


class PullInterrupted(Interrupted):
    """Ctrl-C during a download. What came is kept, and the next pull goes on there. `received`: its bytes."""

    def __init__(self, received: int = 0) -> None:
        super().__init__(None)
        self.received = received

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted: what was downloaded is kept; pull or load again, and it goes on there."]


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for a name that isn't known.

    Args:
        kind: what the name should have been ("model", "engine", "option").
        name: what was given.
        known: the names that exist.
        hint: more way out, put after the list.

    Returns:
        An error that lists the known names and says the closest.
    """
    names = tuple(known)
    lowered = {n.lower(): n for n in names}
    match = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    closest = lowered[match[0]] if match else None
    parts = []
    if closest is not None:
        parts.append(f"Did you mean {closest!r}?")
    parts.append(f"Known: {', '.join(names)}." if names else f"No {kind} is known yet.")
    if hint:
        parts.append(hint)
    return UnknownNameError(f"Unknown {kind} {name!r}.", " ".join(parts), known=names, closest=closest)
