"""The guide: one constraint in the form that both engines take, its judge, and the way back to a typed object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["json", "regex", "choice", "lark", "gbnf"]


def _as_text(text: str) -> Any:
    return text


@dataclass(frozen=True, slots=True)
class Guide:
    """A constraint on a text, checked. Make it with `llmlab.guided.constraints`.

    Attributes:
        kind: what was asked for: json (a schema or a structured type), regex (a regex or a plain type), choice, lark
            or gbnf.
        text: the constraint as the mask library takes it: a JSON schema, a regex, or a Lark grammar.
        name: what to call it in a line of text ("Person", "regex [0-9]{3}").
        schema: the JSON schema as it was given, for kind json.
        check: raises ValueError when a text breaks the constraint (JSON: the jsonschema library is the judge);
            None where the grammar itself is the only judge.
        convert: from a text that passed to the typed object.
    """

    kind: Kind
    text: str
    name: str = ""
    schema: Any = None
    check: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    convert: Callable[[str], Any] = field(default=_as_text, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """A key for caches: equal constraints have equal digests."""
        return hashlib.blake2b(f"{self.form}\0{self.text}".encode(), digest_size=16).hexdigest()

    @property
    def form(self) -> Literal["json", "regex", "lark"]:
        """How `text` is to be read."""
        return self.kind if self.kind in ("json", "regex") else "lark"

    def grammar(self) -> str:
        """The constraint in llguidance's own serialized form."""
        from llguidance import LLMatcher

        if self.form == "json":
            return str(LLMatcher.grammar_from_json_schema(self.text))
        if self.form == "regex":
            return str(LLMatcher.grammar_from_regex(self.text))
        return str(LLMatcher.grammar_from_lark(self.text))

    def problem(self, text: str) -> str:
        """What is wrong with a text, in one line; "" when the judge passes it."""
        if self.check is None:
            return ""
        try:
            self.check(text)
        except (ValueError, RecursionError) as error:
            return str(error).splitlines()[0][:300] or type(error).__name__
        return ""

    def parse(self, text: str) -> Any:
        """The typed object that a text stands for.

        Raises:
            ValueError: the text breaks the constraint, or the type's own validators refuse it.
        """
        if self.check is not None:
            self.check(text)
        return self.convert(text)
