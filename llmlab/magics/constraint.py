"""The options `--schema`, `--type`, `--regex`, `--choice` and `--grammar` of `%%llm`."""

from __future__ import annotations

import argparse
import ast
import builtins
import datetime as dt
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab.errors import BadInputError, UnknownNameError, unknown
from llmlab.magics.expansion import look_up
from llmlab.magics.parser import Parser

# The types that --type accepts without a variable.
_BUILT_IN = ("int", "float", "bool", "str", "dict", "list", "tuple", "set")
_TYPES: dict[str, Any] = {name: getattr(builtins, name) for name in _BUILT_IN} | {
    "date": dt.date, "time": dt.time, "datetime": dt.datetime, "Literal": typing.Literal,
    "Optional": typing.Optional, "Union": typing.Union,
}  # fmt: skip


def add_options(parser: Parser) -> None:
    """Declare the options."""
    text = "JSON that follows a schema: a pydantic model, a dataclass, a TypedDict, a dict, or a .json file"
    parser.add("--schema", as_typed=True, metavar="VAR|FILE", complete="variable", help=text)
    parser.add(
        "--type",
        as_typed=True,
        metavar="TYPE",
        complete="variable",
        help="a value of a Python type: int, list[str], 'int | None', or a variable",
    )
    parser.add("--regex", as_typed=True, metavar="R", help="text that fully matches a regex (or a variable's)")
    parser.add("--choice", as_typed=True, metavar="A,B", help="one of these strings")
    parser.add(
        "--grammar",
        as_typed=True,
        metavar="VAR|FILE",
        complete="variable",
        help="text that follows a Lark or GBNF grammar",
    )
    parser.add("--probs", action="store_true", help="with --choice: the probability of each option")
    parser.add("--complete", action="store_true", help="close the text within --max-tokens if the constraint allows")


def options(args: argparse.Namespace, names: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `generate` for these options.

    Args:
        args: the parsed line.
        names: the user's variables.

    Raises:
        BadInputError: a variable or file doesn't exist, or can't be read.
    """
    found: dict[str, Any] = {}
    if args.schema is not None:
        found["schema"] = _value("--schema", args.schema, names)
    if args.type is not None:
        found["type"] = _type(args.type, {**_TYPES, **names})
    if args.regex is not None:
        held = names.get(args.regex) if args.regex.isidentifier() else None
        found["regex"] = held if isinstance(held, str) else args.regex
    if args.choice is not None:
        found["choice"] = [text.strip() for text in args.choice.split(",")] if args.choice.strip() else []
    if args.grammar is not None:
        found["grammar"] = _value("--grammar", args.grammar, names)
    if args.probs:
        found["probabilities"] = True
    if args.complete:
        found["complete"] = True
    return found


def _type(text: str, names: Mapping[str, Any]) -> Any:
    """A type: a variable, or an expression of names, such as `list[str]` or `dict[str, Person] | None`.

    Nothing is called. A subscript of a variable that isn't a type is its item.
    """
    try:
        return _type_of(ast.parse(text.strip(), mode="eval").body, names)
    except SyntaxError:
        pass
    except (AttributeError, LookupError, TypeError) as error:
        raise BadInputError(
            f"%%llm: --type {text}: {type(error).__name__}: {error}.", "For example --type list[str]"
        ) from None
    raise BadInputError(
        f"%%llm: --type {text!r} isn't a type.", "For example int, list[str], 'int | None', or a variable that is one."
    )


def _type_of(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return _value("--type", name, names, files=False)
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=parts):
            return tuple(_type_of(part, names) for part in parts)
        case ast.List(elts=parts):
            return [_type_of(part, names) for part in parts]
        case ast.Attribute(value=owner, attr=name):
            return getattr(_type_of(owner, names), name)
        case ast.Subscript(value=owner, slice=inner):
            return _type_of(owner, names)[_type_of(inner, names)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type_of(left, names) | _type_of(right, names)
    raise SyntaxError


def _value(option: str, text: str, names: Mapping[str, Any], *, files: bool = True) -> Any:
    """A variable's value, or a file's text."""
    head = text.split(".", 1)[0].split("[", 1)[0]
    if head in names:
        return look_up(text, names)
    path = Path(text).expanduser()
    if files and path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"%%llm: {option} {text} can't be read: {error}.") from None
    own = [known for known in names if not known.startswith("_")]
    closest = unknown("variable", head, own).closest
    guess = f"Did you mean {closest!r}? " if closest else ""
    what = "variable or file" if files else "variable or type"
    raise UnknownNameError(
        f"%%llm: {option}: there is no {what} {text!r}.",
        f"{guess}Define it in a cell before this one.",
        known=tuple(own),
        closest=closest,
    )
