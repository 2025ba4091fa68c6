"""Scorers: functions of an answer, the expected answer and the row, that return a number, a yes or no, or a label."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from llmlab.errors import BadInputError, unknown
from llmlab.statistics.pairs import Kind

Value = float | bool | str | None
Needs = Literal["", "model", "judge"]


@dataclass(frozen=True)
class Scorer:
    """A function that scores an answer. Made by `@llmlab.scorer`, or one of `llmlab.experiments.scorers`.

    Attributes:
        name: the column of its scores.
        function: takes the answer's text, the expected answer (None without one) and the row: what is asked of the
            answer and the data's columns.
        kind: what its values are compared as; None: by the values.
        better: "higher" or "lower".
        config: its settings, as they are written into a lock.
        bounded: no value can be below 0 or above 1.
        needs: "model" is called with the model, all of its answers and the expected ones; "judge" brings its own.

    Example:
        >>> @llmlab.scorer
        ... def polite(answer):
        ...     return "please" in answer
        >>> polite.name, polite("Yes, please.", None, {})
        ('polite', True)
    """

    name: str
    function: Callable[..., Any]
    kind: Kind | None = None
    better: Literal["higher", "lower"] = "higher"
    config: Mapping[str, Any] = field(default_factory=dict)
    needs: Needs = ""
    bounded: bool = False
    arguments: int = 3

    def __call__(self, answer: str, reference: str | None, row: Mapping[str, Any]) -> Value:
        """Score an answer.

        Args:
            answer: the answer's text.
            reference: the expected answer.
            row: the row of the frame.

        Returns:
            A number, a yes or no, a label, or None where the answer can't be scored.

        Raises:
            BadInputError: the function returned something else.
        """
        return checked(self.function(*(answer, reference, row)[: self.arguments]), self.name)

    @property
    def digest(self) -> str:
        """What the scores that are kept depend on, which is the settings and the code."""
        try:
            code = inspect.getsource(self.function)
        except (OSError, TypeError):
            code = getattr(self.function, "__qualname__", repr(self.function))
        text = json.dumps([self.name, dict(self.config), code], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"<Scorer {self.name}{f' ({shown})' if shown else ''}>"


def checked(value: Any, name: str) -> Value:
    """A score as a Python value; NaN, as None, isn't a score."""
    if value is None or isinstance(value, bool | str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInputError(
            f"The scorer {name} returned {value!r:.60}.", "It must return a number, True or False, a label, or None."
        ) from None
    return None if math.isnan(number) else number


@overload
def scorer(function: Callable[..., object]) -> Scorer: ...
@overload
def scorer(
    *, name: str | None = ..., kind: Kind | None = ..., better: Literal["higher", "lower"] = ..., bounded: bool = ...
) -> Callable[[Callable[..., object]], Scorer]: ...
def scorer(
    function: Callable[..., object] | None = None,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    better: Literal["higher", "lower"] = "higher",
    bounded: bool = False,
) -> Scorer | Callable[[Callable[..., object]], Scorer]:
    """Make a scorer of a function of (answer), (answer, reference) or (answer, reference, row).

    Args:
        function: returns a number, True or False, a label (a text), or None where the answer can't be scored.
        name: the column of its scores; None: the function's name.
        kind: "rating" compares ranks (Wilcoxon); None: yes/no if all values are, else numbers.
        better: which values are better, "higher" or "lower".
        bounded: no value can be below 0 or above 1; then the means' intervals can't either.

    Returns:
        The scorer; a decorator, if it is called without a function.

    Raises:
        BadInputError: the function takes other arguments.

    Example:
        >>> @llmlab.scorer(better="lower")
        ... def words(answer):
        ...     return len(answer.split())
        >>> words
        <Scorer words>
    """
    if function is None:
        return lambda found: _made(found, name, kind, better, bounded=bounded)
    return _made(function, name, kind, better, bounded=bounded)


def _made(
    function: Callable[..., object],
    name: str | None,
    kind: Kind | None,
    better: Literal["higher", "lower"],
    *,
    bounded: bool = False,
) -> Scorer:
    if not callable(function):
        raise BadInputError(f"A scorer must be a function of the answer, got {type(function).__name__}.")
    called = name or str(getattr(function, "__name__", "score"))
    return Scorer(called, function, kind, better, bounded=bounded, arguments=_arguments(function, called))


def _arguments(function: Callable[..., object], name: str) -> int:
    """How many of (answer, reference, row) a function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return 3
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in places if one.default is one.empty]
    if not places or len(needed) > 3:
        raise BadInputError(
            f"The scorer {name} must take 1 to 3 positional arguments: the answer, the expected answer, the row."
        )
    return max(len(needed), 1)


def find(given: Any) -> Scorer:
    """A scorer, from a scorer, a function, or a built-in one's name.

    Raises:
        UnknownNameError: no built-in scorer has this name.
    """
    if isinstance(given, Scorer):
        return given
    if isinstance(given, str):
        from llmlab.experiments.scorers import BUILT_IN

        if given not in BUILT_IN:
            raise unknown("scorer", given, BUILT_IN, "Or pass a function: @llmlab.scorer")
        return BUILT_IN[given]
    return _made(given, None, None, "higher")
