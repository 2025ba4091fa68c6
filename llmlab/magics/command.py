"""What a command is: a parser, help, and a `run` that calls the bench and returns an object."""

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


@dataclass(frozen=True)
class Context:
    """What a command works on.

    Attributes:
        shell: the IPython shell.
        find_lab: gives the Lab; called at first use, so that `%load_ext` stays quick.
        silence: keeps a value that was shown already from being shown again.
    """

    shell: Any
    find_lab: Callable[[], Lab]
    silence: Silence

    @property
    def lab(self) -> Lab:
        """The bench's models, current model and history."""
        return self.find_lab()


@dataclass(frozen=True)
class CommandDoc:
    """All that help and the reference say of a command, read off its parser."""

    name: str
    usage: str
    summary: str
    details: str
    options: tuple[OptionDoc, ...]
    examples: tuple[tuple[str, str], ...]


class Command(ABC):
    """One command of `%llm`; a small module each, imported when it's first used.

    Attributes:
        name: what follows `%llm`.
        summary: one line for lists.
        details: paragraphs for its own help.
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
        """A parser with the command's arguments, made once (it takes a millisecond)."""
        return _parser(cls)

    @classmethod
    @abstractmethod
    def arguments(cls, parser: Parser) -> None:
        """Declare the arguments."""

    @classmethod
    @abstractmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Do it and return what there is to show or keep."""

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
