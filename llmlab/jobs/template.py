"""The prompt of a row: a text or a conversation with `{{columns}}`, or a function of the row."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.experiments.design import VARIABLE, as_conversation, filled
from llmlab.types import Message

Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class Template:
    """A prompt with variables.

    Attributes:
        turns: the conversation, with `{{column}}` for the row's values.
        text: it was given as a text.
        function: makes the prompt from the row instead.
    """

    turns: tuple[Message, ...] = ()
    text: bool = False
    function: Callable[[Mapping[str, Any]], Any] | None = None

    @classmethod
    def of(cls, given: Any, columns: Sequence[str]) -> Template:
        """Check a prompt against the columns of the data.

        Raises:
            BadInputError: it is no prompt.
            UnknownNameError: a variable is no column.
        """
        if callable(given):
            return cls(function=given)
        if not given or not isinstance(given, str | Sequence):
            raise BadInputError("The prompt is empty.", 'For example "What is the capital of {{country}}?"')
        turns = as_conversation(given)
        for name in (name for turn in turns for name in VARIABLE.findall(turn.content)):
            if name not in columns and columns:
                raise unknown("variable of the prompt", name, columns, "The columns of the data are its variables.")
        return cls(turns, isinstance(given, str))

    def prompt(self, row: Mapping[str, Any]) -> Prompt:
        """The prompt of a row.

        Raises:
            LlmLabError: the row has no such column, or the function fails.
        """
        if self.function is None:
            turns = tuple(filled(turn, row) for turn in self.turns)
            return turns[0].content if self.text else turns
        try:
            made = self.function(row)
        except Exception as error:  # the user's code
            raise LlmLabError(f"The prompt's function failed: {type(error).__name__}: {error}") from error
        return made if isinstance(made, str) else as_conversation(made)

    def as_dict(self) -> dict[str, Any]:
        """What the prompts depend on, in JSON's types."""
        if self.function is None:
            return {"turns": [turn.as_dict() for turn in self.turns]}
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):
            source = repr(getattr(getattr(self.function, "__code__", None), "co_code", ""))
        return {"function": hashlib.sha256(source.encode()).hexdigest()}
