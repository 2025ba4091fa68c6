"""Regexes, choices and grammars: checked before anything is generated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided import gbnf
from llmlab.guided.guide import Guide, Kind

_HEAD = "%llguidance {}\n\n"
_GBNF_RULE = re.compile(r"(?m)^[ \t]*[A-Za-z0-9_-]+[ \t]*::=")
_UNLIMITED = re.compile(r"[*+]|\{\d*,\}")


def regex_guide(pattern: str, *, name: str = "", convert: Callable[[str], Any] = str, bounded: bool = True) -> Guide:
    """Make a guide of a regex: the whole text must match it.

    Args:
        pattern: the regex, in the syntax that Python's `re` and Rust's `regex` share.
        name: what to call it.
        convert: from a text that matches to the typed object.
        bounded: refuse one that has no longest match.

    Raises:
        BadInputError: it's no valid regex, matches nothing, or has no longest match.
        UnsupportedError: look-around or back-references, which no mask can follow.
    """
    if not isinstance(pattern, str):
        raise BadInputError(f"A regex must be text, got {type(pattern).__name__}.", r"For example r'\d{4}-\d{2}'.")
    if not pattern:
        raise BadInputError("The regex is empty: only the empty text would match.", r"For example r'\d{4}-\d{2}'.")
    if "\x00" in pattern:
        raise BadInputError("The regex holds a NUL character.")
    guide = Guide("regex", pattern, name or f"regex {pattern}", check=_matches(pattern), convert=convert)
    said = refusal(guide)
    if said:
        said = said.replace("error:", "\nerror:").split("\nerror:")[-1].partition("\n")[0] if "error:" in said else said
        said = re.sub(r"^at \d+\(\d+\): |\n.*", "", said.strip(), flags=re.DOTALL)
        if "look-around" in said or "lookaround" in said or "backreference" in said:
            raise UnsupportedError(
                f"The regex {pattern!r} can't be followed token by token: {said}.",
                "Say it without look-around, word borders and back-references; use a grammar for what nests.",
            )
        raise BadInputError(f"{pattern!r} isn't a valid regex: {said}.")
    if matches_nothing(guide):
        raise BadInputError(f"No text matches the regex {pattern!r}.")
    endless = unlimited(pattern) if bounded else ""
    if endless:
        raise BadInputError(
            f"The regex {pattern!r} is unbounded: {endless!r} has no upper limit, so a model may never come to an end.",
            "Bound it, as in {0,40}; or give max_tokens, and the answer may be cut there.",
        )
    return guide


def _matches(pattern: str) -> Callable[[str], None] | None:
    """The judge by Python's `re`; None for a pattern that only Rust's dialect has."""
    try:
        compiled = re.compile(pattern)
    except re.error:
        return None

    def check(text: str) -> None:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"{text!r:.80} doesn't match the regex {pattern!r:.120}")

    return check


def unlimited(pattern: str) -> str:
    """The first quantifier without an upper limit, or ""."""
    # Escapes and classes hide signs that are no quantifiers.
    hidden = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", lambda found: " " * len(found[0]), pattern, flags=re.DOTALL)
    for found in _UNLIMITED.finditer(hidden):
        if found[0] == "+" and found.start() and hidden[found.start() - 1] in "*+?}":
            continue
        return found[0]
    return ""


def choice_guide(choices: Iterable[Any], *, name: str = "") -> Guide:
    """Make a guide that leaves a choice between texts; `parsed` is the item that was chosen.

    Raises:
        BadInputError: there is none, one is empty or no text, or two are the same.
    """
    if isinstance(choices, str):
        raise BadInputError(f"choice takes a list of texts, got {choices!r:.60}.", "For example ['yes', 'no'].")
    items = list(choices)
    if not items:
        raise BadInputError("The choice is empty.", "Give at least one text, for example choice=['yes', 'no'].")
    texts: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, str | int | float):
            raise BadInputError(f"A choice must be a text or a number, got {item!r:.60}.", "Use type= for types.")
        text = str(item)
        if not text:
            raise BadInputError("One of the choices is empty.", "Leave it out.")
        if text in texts:
            raise BadInputError(f"The choice {text!r} is there twice.", "Leave one out.")
        texts[text] = item
    # The longest first helps nobody: a mask keeps all that may still come true.
    lark = f"{_HEAD}start: " + "\n     | ".join(_quoted(text) for text in texts)

    def check(text: str) -> None:
        if text not in texts:
            raise ValueError(f"{text!r:.80} is none of the choices")

    shown = ", ".join(list(texts)[:4]) + (", …" if len(texts) > 4 else "")
    guide = Guide("choice", lark, name or f"choice {shown}", check=check, convert=texts.__getitem__)
    said = refusal(guide)
    if said:
        raise BadInputError(f"The choice can't be followed: {_first(said)}.")
    return guide


def _quoted(text: str) -> str:
    """A Lark string for any text: what isn't a plain letter, digit or blank is written as an escape."""
    out = "".join(c if c.isalnum() or c in " -_.,:;!?()'" else f"\\u{{{ord(c):x}}}" for c in text)
    return f'"{out}"' if "\\u{" not in out else "/" + _regex_quoted(text) + "/"


def _regex_quoted(text: str) -> str:
    return "".join(c if c.isalnum() or c == " " else f"\\x{{{ord(c):x}}}" for c in text)


def grammar_guide(text: str, *, name: str = "") -> Guide:
    """Make a guide of a grammar: GBNF (or EBNF with `::=` and a rule `root`), or Lark with a rule `start`.

    Raises:
        BadInputError: it's empty, has no root, or can't be read (with the place).
    """
    if not isinstance(text, str):
        raise BadInputError(f"A grammar is text, got {type(text).__name__}.", 'For example \'root ::= "a" | "b"\'.')
    if not text.strip():
        raise BadInputError("The grammar is empty.", 'For example \'root ::= "yes" | "no"\'.')
    kind: Kind = "gbnf" if _GBNF_RULE.search(text) else "lark"
    # The first line says for certain which of the two it is.
    lark = _gbnf(text) if kind == "gbnf" else text if "%llguidance" in text else f"{_HEAD}{text}"
    if kind == "lark" and not re.search(r"(?m)^\s*[?!]?start\s*(\.\d+)?\s*(\[.*?\])?\s*:", text):
        raise BadInputError(
            "The Lark grammar has no rule `start`, its root.", 'Add one, as in start: greeting " " name.'
        )
    guide = Guide(kind, lark, name or f"{'GBNF' if kind == 'gbnf' else 'Lark'} grammar")
    said = refusal(guide)
    if said:
        raise BadInputError(f"The {'GBNF' if kind == 'gbnf' else 'Lark'} grammar can't be read: {_first(said)}.")
    if matches_nothing(guide):
        raise BadInputError("No text satisfies the grammar.")
    return guide


def _gbnf(text: str) -> str:
    if not re.search(r"(?m)^\s*root\s*::=", text):
        raise BadInputError("The grammar has no rule `root`.", "Add one, as in root ::= greeting.")
    try:
        return gbnf.lark(text)
    except gbnf.GbnfError as error:
        raise BadInputError(f"The GBNF grammar can't be read: {error}.") from None


def _first(said: str) -> str:
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    return (lines[0] if lines else "unknown reason").rstrip(".")[:240]


def refusal(guide: Guide) -> str:
    """What the mask library has against a guide; "" when it can follow it."""
    from llguidance import LLMatcher

    failed, said = LLMatcher.validate_grammar_with_warnings(guide.grammar())
    return said[0] if failed and said else ""


def matches_nothing(guide: Guide) -> bool:
    """Whether not even the first byte of a text is allowed, the empty text included."""
    from llguidance import LLMatcher

    matcher = LLMatcher(bytes_tokenizer(), guide.grammar(), log_level=0)
    if matcher.is_error():
        return False
    matcher.compute_bitmask()
    return matcher.is_stopped() and not matcher.is_accepting()


def bytes_tokenizer() -> Any:
    """A tokenizer of the 256 bytes and an end token: enough to ask a grammar questions."""
    from llguidance import LLTokenizer

    from llmlab.guided.compiler import Vocabulary

    return LLTokenizer(Vocabulary([bytes([i]) for i in range(256)], (), (256,)), slices=[])
