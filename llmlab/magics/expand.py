"""`{{name}}` in a cell's body: replaced from the user's variables, once, and never guessed."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from llmlab.errors import BadInputError, UnknownNameError, unknown

_MARK = re.compile(r"\\\{\{|\{\{(.*?)\}\}", re.DOTALL)
_KEEP = r"Write \{{ for braces as they are, or use --raw."


def expand(body: str, names: Mapping[str, Any]) -> str:
    r"""Replace every `{{name}}`, `{{name.attribute}}` and `{{name[0]}}` with the value's text.

    What a value holds isn't expanded again. `\{{` stands for two braces.

    Args:
        body: the cell's text.
        names: the user's variables.

    Raises:
        UnknownNameError: the variable isn't there; the closest one is named.
        BadInputError: what stands between the braces isn't a name, or the value lacks the attribute or item.
    """

    def value(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "{{"
        return text_of(look_up(match.group(1).strip(), names))

    return _MARK.sub(value, body)


def look_up(path: str, names: Mapping[str, Any]) -> Any:
    """The value of a name, with attributes and constant subscripts after it. Nothing is called."""
    try:
        tree = ast.parse(path, mode="eval").body
    except SyntaxError:
        tree = None
    if tree is None or not _is_path(tree):
        raise BadInputError(
            f"{{{{{path}}}}} in the cell isn't a name; {{{{name}}}}, {{{{name.attribute}}}} and {{{{name[0]}}}} are.",
            _KEEP,
        )
    return _value(tree, path, names)


def text_of(value: Any) -> str:
    """The text a value goes into the prompt as: a table (pandas) whole, anything else as `str` gives it."""
    if type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "to_string"):
        return str(value.to_string())
    return str(value)


def _is_path(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return True
    if isinstance(node, ast.Attribute):
        return _is_path(node.value)
    return isinstance(node, ast.Subscript) and _is_constant(node.slice) and _is_path(node.value)


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant)
    return isinstance(node, ast.Constant)


def _value(node: ast.expr, path: str, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise _undefined(node.id, names)
        return names[node.id]
    try:
        if isinstance(node, ast.Attribute):
            return getattr(_value(node.value, path, names), node.attr)
        assert isinstance(node, ast.Subscript)
        return _value(node.value, path, names)[ast.literal_eval(node.slice)]
    except (AttributeError, LookupError, TypeError) as error:
        raise BadInputError(f"{{{{{path}}}}} in the cell: {type(error).__name__}: {error}.", _KEEP) from None


def _undefined(name: str, names: Mapping[str, Any]) -> UnknownNameError:
    # All of the user's variables would be a long list; the closest is what helps.
    own = [known for known in names if not known.startswith("_")]
    closest = unknown("variable", name, own).closest
    guess = f"Did you mean {closest!r}? " if closest else ""
    message = f"{{{{{name}}}}} in the cell: no variable {name!r}."
    return UnknownNameError(message, guess + _KEEP, known=tuple(own), closest=closest)
