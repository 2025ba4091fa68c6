"""The guide: a constraint in the form that both engines take, its validator, and the conversion to a typed object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from llmlab.guided.chars import Node

Kind = Literal["json", "regex", "choice", "lark", "gbnf"]


class Violation(ValueError):  # noqa: N818 - it is reported, not only raised
    """A text violates a constraint. `path` leads to the value that does."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


def _as_text(text: str) -> Any:
    return text


@dataclass(frozen=True, slots=True)
class Guide:
    """A validated constraint. Make it with `llmlab.guided.make`.

    Attributes:
        kind: json (a schema or a structured type), regex (a regex or a plain type), choice, lark or gbnf.
        text: the constraint as the mask library takes it: a JSON schema, a regex, or a Lark grammar.
        name: a short name for messages ("Person", "regex [0-9]{3}").
        schema: the original JSON schema, for kind json.
        check: the validator: raises ValueError if a text violates the constraint (JSON: jsonschema);
            None if there is only the grammar.
        convert: valid text -> typed object.
        source: the regex or grammar as it was given, for kinds regex, lark and gbnf.
        choices: the texts, for kind choice.
        tree: the syntax tree, for kind regex.
        max_digits: the most digits of a number in a JSON text; 0: no limit.
        checked: JSON pointers of the keywords that the masks enforce only in part. A text that violates one of them is
            generated again from the point where it went wrong.
        headed: its texts begin with the name of a channel (gpt-oss), which llmlab writes otherwise.
    """

    kind: Kind
    text: str
    name: str = ""
    schema: Any = None
    check: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    convert: Callable[[str], Any] = field(default=_as_text, repr=False, compare=False)
    checked: tuple[str, ...] = ()
    max_digits: int = 0
    source: str = field(default="", repr=False, compare=False)
    choices: tuple[str, ...] = ()
    tree: Node | None = field(default=None, repr=False, compare=False)
    headed: bool = False

    @property
    def digest(self) -> str:
        """A cache key: equal constraints have equal digests."""
        return hashlib.blake2b(f"{self.form}\0{self.text}".encode(), digest_size=16).hexdigest()

    @property
    def form(self) -> Literal["json", "regex", "lark"]:
        """The format of `text`."""
        return self.kind if self.kind in ("json", "regex") else "lark"

    def grammar(self) -> str:
        """The constraint in llguidance's serialized form."""
        from llguidance import LLMatcher

        if self.form == "json":
            return str(LLMatcher.grammar_from_json_schema(self.text))
        if self.form == "regex":
            return str(LLMatcher.grammar_from_regex(self.text))
        return str(LLMatcher.grammar_from_lark(self.text))

    def problem(self, text: str) -> str:
        """What is wrong with a text, in one line; "" if the validator accepts it."""
        if self.check is None:
            return ""
        try:
            self.check(text)
        except (ValueError, RecursionError) as error:
            return str(error).splitlines()[0][:300] or type(error).__name__
        return ""

    def where(self, text: str) -> tuple[str | int, ...]:
        """The path to the value that violates the constraint; () if unknown, or if it is the entire text."""
        try:
            if self.check is not None:
                self.check(text)
        except Violation as error:
            return error.path
        except (ValueError, RecursionError):
            pass
        return ()

    def parse(self, text: str) -> Any:
        """Convert a text to its typed object.

        Raises:
            ValueError: the text violates the constraint, or the type's own validators reject it.
        """
        if self.check is not None:
            self.check(text)
        return self.convert(text)
