"""Argument parsing for magics: an argparse parser that never exits or prints, and raises llmlab's errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from llmlab.errors import BadInputError, UnknownNameError, unknown
from llmlab.magics.expansion import Word, words


class HelpAsked(Exception):  # noqa: N818 - not an error
    """`-h` or `--help` was on the line."""


@dataclass(frozen=True)
class OptionDoc:
    """An argument as shown in help and the reference.

    Attributes:
        names: `("-t", "--temperature")`, or `("MODEL",)` for a positional one.
        value: the placeholder of its value, "" for a flag.
        help: what it does.
        choices: the accepted values, if limited.
        positional: given by position, not by name.
        completes: the kind of Tab completion of its value ("catalogue", "model", ...), or "".
    """

    names: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()
    positional: bool = False
    required: bool = False
    completes: str = ""
    many: bool = False


@dataclass
class _Extra:
    """Properties of an argument that argparse doesn't store."""

    completes: dict[str, str] = field(default_factory=dict)
    as_typed: set[str] = field(default_factory=set)


class Parser(argparse.ArgumentParser):
    """A parser for one magic command.

    Args:
        name: the command as typed, such as "%llm load".
    """

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False, exit_on_error=False)
        self._extra = _Extra()

    def add(self, *names: str, complete: str = "", as_typed: bool = False, **options: Any) -> None:
        """Add an argument, as `add_argument`.

        Args:
            *names: its option names, or its positional name.
            complete: the kind of Tab completion of its value.
            as_typed: its value may contain literal `$` and braces (a regex, JSON, a price), so no variable in it is
                replaced; see `fill`.
            **options: as `add_argument`.
        """
        action = self.add_argument(*names, **options)
        if complete:
            self._extra.completes[action.dest] = complete
        if as_typed:
            self._extra.as_typed.add(action.dest)

    # -- parsing -------------------------------------------------------------------------------

    def parse_line(self, line: str) -> argparse.Namespace:
        """Parse the arguments after the command.

        Raises:
            HelpAsked: the line requests help.
            BadInputError: the line is invalid; the hint has a suggested fix.
        """
        return self.parse_words(split(line))

    def fill(self, line: Sequence[Word], names: Mapping[str, Any]) -> list[str]:
        """The words of a line with variables replaced, by the same rule for `%llm` and `%%llm`.

        `$name` and `{{name}}` are replaced everywhere except in the values of options added with `as_typed`. Such a
        value is replaced only if all of it is one bare `$name` or `{{name}}`.

        Raises:
            UnknownNameError: there is no such variable.
        """
        out: list[str] = []
        taking: argparse.Action | None = None
        for word in line:
            option, attached = self._option(word.typed)
            if taking is not None and (option is None or taking.nargs is None):
                out.append(word.value(names))
                taking = taking if taking.nargs is not None else None
            elif option is not None and option.dest in self._extra.as_typed:
                out.append(word.typed)
                taking = None if attached else option
            else:
                out += word.fill(names)
                taking = None
        return out

    def _option(self, word: str) -> tuple[argparse.Action | None, bool]:
        """The option named by a word (the last one of joined flags, `-cs`), and whether its value is in the word."""
        known = self._option_string_actions
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            return known.get(name), bool(equals)
        if not word.startswith("-"):
            return None, False
        for place, letter in enumerate(word[1:], start=2):
            action = known.get(f"-{letter}")
            if action is None or action.nargs != 0:
                return action, place < len(word)
        return known.get(f"-{word[-1]}"), False

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse words; see `parse_line`."""
        values_of = {name for action in self._actions if action.nargs != 0 for name in action.option_strings}
        for place, word in enumerate(words):
            if word in ("-h", "--help") and (place == 0 or words[place - 1] not in values_of):
                raise HelpAsked
        # Report unknown options first: argparse would report a missing argument instead.
        self._refuse_unknown(words)
        try:
            found, left = self.parse_known_args(list(words))
        except argparse.ArgumentError as error:
            self._bad_argument(error)
        if left:
            raise BadInputError(f"{self.prog}: unexpected {' '.join(map(repr, left))}.", self._usage_hint())
        return found

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        for word in words:
            if word == "--":
                return
            name = word.split("=", 1)[0] if word.startswith("--") else word[:2]
            if not re.fullmatch(r"--?[A-Za-z][\w-]*", name) or name in self._option_string_actions:
                continue
            given = word.split("=", 1)[0]
            known = [n for action in self._actions for n in action.option_strings]
            raise prefixed(self.prog, unknown("option", given, known, f"See {self.help_command}."))

    def _bad_argument(self, error: argparse.ArgumentError) -> NoReturn:
        name = (error.argument_name or "").split("/")[-1]
        message = error.message.replace("expected", "takes") + ", got none" * error.message.startswith("expected")
        doc = self.action_for(name)
        way_out = f"{', '.join(doc.names)} {doc.value}: {doc.help}." if doc else self._usage_hint()
        raise BadInputError(f"{self.prog}: {name} {message}.", way_out) from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise prefixed(self.prog, unknown(_label(action), str(value), choices))

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error."""
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        problem = f"{missing.group(1)} is missing" if missing else message
        raise BadInputError(f"{self.prog}: {problem}.", self._usage_hint())

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise instead of exiting, which would end the kernel."""
        raise BadInputError(f"{self.prog}: {message or status}.", self._usage_hint())

    # -- describing ----------------------------------------------------------------------------

    @property
    def help_command(self) -> str:
        """The line that shows this command's help."""
        return f"%llm help {self.prog.split()[-1]}" if self.prog.startswith("%llm ") else "%llm help cell"

    def usage_line(self) -> str:
        """The usage in one line: `%llm load MODEL [--engine auto|vllm|llamacpp] ...`."""
        parts = [self.prog]
        for option in self.options():
            value = "|".join(option.choices) or option.value
            shown = " ".join(part for part in ((value,) if option.positional else (option.names[0], value)) if part)
            shown += " ..." if option.many else ""
            parts.append(shown if option.required else f"[{shown}]")
        return " ".join(parts)

    def options(self) -> list[OptionDoc]:
        """All arguments, positional ones first."""
        docs = [self._doc(action) for action in self._actions]
        return sorted(docs, key=lambda doc: not doc.positional)

    def action_for(self, name: str) -> OptionDoc | None:
        """The argument with this option name, or None."""
        action = self._option_string_actions.get(name)
        return None if action is None else self._doc(action)

    def _doc(self, action: argparse.Action) -> OptionDoc:
        positional = not action.option_strings
        return OptionDoc(
            names=(_label(action),) if positional else tuple(action.option_strings),
            value="" if action.nargs == 0 else _label(action),
            help=(action.help or "").replace("%%", "%"),
            choices=tuple(str(choice) for choice in action.choices or ()),
            positional=positional,
            required=action.required,
            completes=self._extra.completes.get(action.dest, ""),
            many=action.nargs in ("+", "*") or type(action).__name__ == "_AppendAction",
        )

    def _usage_hint(self) -> str:
        return f"Usage: {self.usage_line()}"


def prefixed(typed: str, error: UnknownNameError) -> UnknownNameError:
    """The same error, prefixed with the command: "%llm load: Unknown option ..."."""
    return UnknownNameError(f"{typed}: {error.message}", error.hint, known=error.known, closest=error.closest)


def _label(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper().replace("_", "-") if action.nargs != 0 else action.dest


def split(line: str) -> list[str]:
    """The words of a magic's line as they were typed; see `llmlab.magics.expansion.words`."""
    return [word.typed for word in words(line)]


# -- types of values ---------------------------------------------------------------------------


def _converter(kind: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}") from None

    return convert


integer = _converter(int, "an integer")
"""An integer argument."""

number = _converter(float, "a number")
"""A numeric argument."""
