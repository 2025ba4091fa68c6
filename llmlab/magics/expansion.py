"""Variables in magics: `{{name}}` in a cell's body, `$name` and `{{name}}` on the line of `%llm` and `%%llm`.

The line is split into words by shell rules. IPython's own expansion is off (`no_var_expand`): it evaluates any `{...}`
as Python, so that the regex `[a-z]{3}` would become `[a-z]3`.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmlab.errors import BadInputError, UnknownNameError, unknown

_MARK = re.compile(r"\\\{\{|\{\{(.*?)\}\}", re.DOTALL)
_KEEP = r"Write \{{ for literal braces, or use --raw."
_KEEP_ON_LINE = "Single quotes keep $ and {{ on the line literal."

_NAME = r"[^\W\d]\w*"
_PATH = rf"\{{\{{\s*{_NAME}(?:\.\w+|\[[^\[\]{{}}]*\])*\s*\}}\}}"
# On Windows a backslash is part of a path.
_ESCAPES = os.name != "nt"
_PIECE = re.compile(
    rf"(?P<space>[ \t\r\n]+)|(?P<mark>{_PATH})|'(?P<exact>[^']*)'|"
    + (r'"(?P<double>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)|' if _ESCAPES else r'"(?P<double>[^"]*)"|(?P<escaped>(?!))|')
    + (r"""(?P<bare>[^ \t\r\n'"\\{]+|\{)""" if _ESCAPES else r"""(?P<bare>[^ \t\r\n'"{]+|\{)"""),
    re.DOTALL,
)
_VARIABLE = re.compile(rf"\$({_NAME})|\{{\{{(.*?)\}}\}}", re.DOTALL)
_IN_QUOTES = re.compile(rf"\\(\{{\{{|[$\"\\])|\$({_NAME})|\{{\{{(.*?)\}}\}}", re.DOTALL)


def expand(body: str, names: Mapping[str, Any]) -> str:
    r"""Replace every `{{name}}`, `{{name.attribute}}` and `{{name[0]}}` with the value's text.

    The values themselves aren't expanded. `\{{` stands for two literal braces.

    Args:
        body: the cell's text.
        names: the user's variables.

    Raises:
        UnknownNameError: there is no such variable; the error names the closest match.
        BadInputError: the text between the braces isn't a name, or the value lacks the attribute or item.
    """

    def value(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "{{"
        return text_of(look_up(match.group(1).strip(), names))

    return _MARK.sub(value, body)


Kind = Literal["bare", "double", "exact", "mark"]


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a magic's line, in parts by quoting.

    Attributes:
        parts: (text, kind); `bare` and `double` (in double quotes) may contain variables, `mark` is a bare
            `{{name}}`, `exact` was in single quotes or escaped.
    """

    parts: tuple[tuple[str, Kind], ...]

    @property
    def typed(self) -> str:
        """The word without its quotes, with nothing replaced, as from `shlex`."""
        return "".join(re.sub(r'\\(["\\])', r"\1", t) if k == "double" and _ESCAPES else t for t, k in self.parts)

    def fill(self, names: Mapping[str, Any]) -> list[str]:
        """The word with its variables replaced.

        As in a shell, the text of a bare `$name` is split at spaces and may become several words, or none. In double
        quotes, and as `{{name}}`, it remains one word.

        Raises:
            UnknownNameError: there is no such variable; the error names the closest match.
            BadInputError: the text between the braces isn't a name.
        """
        out, quoted = [""], False
        for text, kind in self.parts:
            quoted = quoted or kind != "bare"
            if kind == "exact":
                out[-1] += text
            elif kind == "double" and _ESCAPES:
                out[-1] += _IN_QUOTES.sub(lambda m: m[1] or _variable(m[2], m[3], names), text)
            elif kind in ("double", "mark"):
                out[-1] += _VARIABLE.sub(lambda m: _variable(m[1], m[2], names), text)
            else:
                at = 0
                for match in _VARIABLE.finditer(text):
                    out[-1] += text[at : match.start()]
                    at = match.end()
                    value = _variable(match[1], match[2], names)
                    first, *rest = re.split(r"\s+", value) if match[1] else [value]
                    out[-1] += first
                    out += rest
                out[-1] += text[at:]
        return [word for word in out if word] or ([""] if quoted else [])

    def value(self, names: Mapping[str, Any]) -> str:
        """The word as the value of an option taken as typed: replaced only if all of it is one variable."""
        if len(self.parts) == 1:
            text, kind = self.parts[0]
            match = _VARIABLE.fullmatch(text)
            if kind == "mark" or (kind == "bare" and match is not None and match[1]):
                assert match is not None
                return _variable(match[1], match[2], names)
        return self.typed


def words(line: str) -> list[Word]:
    """The words of a magic's line; quotes keep a word together, as in a shell.

    A backslash escapes the next character (not on Windows, where it is part of paths). An unquoted word that begins
    with `#` starts a comment.

    Raises:
        BadInputError: a quote isn't closed.
    """
    out: list[list[tuple[str, Kind]]] = []
    at, open_word = 0, False
    while at < len(line):
        if line[at] == "#" and not open_word:
            at = (line + "\n").index("\n", at)
            continue
        piece = _PIECE.match(line, at)
        if piece is None:
            raise BadInputError(
                f"A quote isn't closed in {line.strip()!r}.", "Put text with an apostrophe in double quotes."
            )
        at = piece.end()
        if piece["space"]:
            open_word = False
            continue
        if not open_word:
            out.append([])
            open_word = True
        kind: Any = "exact" if piece.lastgroup == "escaped" else piece.lastgroup
        text = piece[piece.lastgroup or 0]
        if kind == "bare" and out[-1] and out[-1][-1][1] == "bare":
            text = out[-1].pop()[0] + text
        out[-1].append((text, kind))
    return [Word(tuple(parts)) for parts in out]


def _variable(name: str | None, path: str | None, names: Mapping[str, Any]) -> str:
    if name is not None:
        if name not in names:
            raise _undefined(f"${name}", name, names, _KEEP_ON_LINE)
        return text_of(names[name])
    return text_of(look_up((path or "").strip(), names, _KEEP_ON_LINE))


def look_up(path: str, names: Mapping[str, Any], keep: str = _KEEP) -> Any:
    """The value of a name, with attributes and constant subscripts after it. Nothing is called.

    Args:
        path: the name and what follows it.
        names: the user's variables.
        keep: the hint for writing literal braces.
    """
    try:
        tree = ast.parse(path, mode="eval").body
    except SyntaxError:
        tree = None
    if tree is None or not _is_path(tree):
        raise BadInputError(
            f"{{{{{path}}}}} in the cell isn't a name; {{{{name}}}}, {{{{name.attribute}}}} and {{{{name[0]}}}} are.",
            keep,
        )
    return _value(tree, path, names, keep)


def text_of(value: Any) -> str:
    """A value's text in the prompt: a complete table for pandas objects, else `str(value)`."""
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


def _value(node: ast.expr, path: str, names: Mapping[str, Any], keep: str) -> Any:
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise _undefined(f"{{{{{node.id}}}}}", node.id, names, keep)
        return names[node.id]
    try:
        if isinstance(node, ast.Attribute):
            return getattr(_value(node.value, path, names, keep), node.attr)
        assert isinstance(node, ast.Subscript)
        return _value(node.value, path, names, keep)[ast.literal_eval(node.slice)]
    except (AttributeError, LookupError, TypeError) as error:
        raise BadInputError(f"{{{{{path}}}}} in the cell: {type(error).__name__}: {error}.", keep) from None


def _undefined(typed: str, name: str, names: Mapping[str, Any], keep: str) -> UnknownNameError:
    # Name only the closest variable: the full list would be long.
    own = [known for known in names if not known.startswith("_")]
    closest = unknown("variable", name, own).closest
    guess = f"Did you mean {closest!r}? " if closest else ""
    return UnknownNameError(
        f"{typed} in the cell: no variable {name!r}.", guess + keep, known=tuple(own), closest=closest
    )
