"""The base class of commands: a parser, help, and a `run` that calls the session and returns an object."""

from __future__ import annotations

import argparse
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.magics.parser import OptionDoc, Parser

if TYPE_CHECKING:
    from llmlab.magics.silence import Silence
    from llmlab.session import Lab


CONTINUE = "--continue-answer"
"""The option of `%%llm` that is also accepted without a cell: `%llm --continue-answer`."""


@dataclass(frozen=True)
class Context:
    """The environment of a command.

    Attributes:
        shell: the IPython shell.
        find_lab: returns the Lab; called at first use, so that `%load_ext` stays fast.
        silence: keeps a value that was already displayed from being displayed again.
    """

    shell: Any
    find_lab: Callable[[], Lab]
    silence: Silence

    @property
    def lab(self) -> Lab:
        """The Lab: loaded models, current model and history."""
        return self.find_lab()


@dataclass(frozen=True)
class CommandDoc:
    """The contents of a command's help and reference entry, generated from its parser."""

    name: str
    usage: str
    summary: str
    details: str
    options: tuple[OptionDoc, ...]
    examples: tuple[tuple[str, str], ...]


class Command(ABC):
    """A command of `%llm`, in its own module, which is imported at first use.

    Attributes:
        name: the word after `%llm`.
        summary: one line for lists.
        details: paragraphs for its help page.
        examples: (what to type, what it does).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    details: ClassVar[str] = ""
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def typed(cls) -> str:
        """What the user types: `%llm load`."""
        return f"%llm {cls.name}"

    @classmethod
    def parser(cls) -> Parser:
        """The parser with the command's arguments, created once (which takes about 1 ms)."""
        return _parser(cls)

    @classmethod
    @abstractmethod
    def arguments(cls, parser: Parser) -> None:
        """Declare the arguments."""

    @classmethod
    @abstractmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Run the command and return the object to display or keep."""

    @classmethod
    def doc(cls) -> CommandDoc:
        """The command's documentation."""
        parser = cls.parser()
        return CommandDoc(
            cls.typed(), parser.usage_line(), cls.summary, cls.details, tuple(parser.options()), cls.examples
        )


@functools.cache
def _parser(command: type[Command]) -> Parser:
    parser = Parser(command.typed())
    command.arguments(parser)
    return parser
