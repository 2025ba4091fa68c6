"""Guides for regexes, choices and grammars, validated before anything is generated."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from llmlab.errors import BadInputError, UnsupportedError
from llmlab.guided import gbnf, pyregex
from llmlab.guided.chars import GAP, rust
from llmlab.guided.ecma import EcmaError, EcmaUnsupportedError
from llmlab.guided.guide import Guide, Kind

_HEAD = "%llguidance {}\n\n"
_GBNF_RULE = re.compile(r"(?m)^[ \t]*[A-Za-z0-9_-]+[ \t]*::=")
_LITERALS = re.compile(r'"(?:[^"\\\n]|\\.)*"i?|\[(?:[^\]\\\n]|\\.)*\]|/(?:[^/\\\n]|\\.)+/[a-z]*|//[^\n]*|#[^\n]*')
_UNLIMITED = re.compile(r"[*+]|\{\d*,\}")


def regex_guide(pattern: str, *, name: str = "", convert: Callable[[str], Any] = str, bounded: bool = True) -> Guide:
    r"""Make a guide for a regex, which must match the entire text.

    Args:
        pattern: the regex, in the dialect of Python's `re`, with `\p{...}` added.
        name: a name for messages.
        convert: matching text -> typed object.
        bounded: refuse unlimited repeats.

    Raises:
        BadInputError: the regex is invalid, matches nothing, or has unlimited repeats.
        UnsupportedError: it uses look-around or back-references, which token masks can't enforce.
    """
    if not isinstance(pattern, str):
        raise BadInputError(f"A regex must be text, got {type(pattern).__name__}.", r"For example r'\d{4}-\d{2}'.")
    if not pattern:
        raise BadInputError("The regex is empty: it matches only the empty text.", r"For example r'\d{4}-\d{2}'.")
    if "\x00" in pattern:
        raise BadInputError("The regex contains a NUL character.")
    try:
        text, checked, tree = pyregex.translated(pattern)
    except EcmaUnsupportedError as error:
        raise UnsupportedError(
            f"The regex {pattern!r} can't be enforced token by token: {error}.",
            "Rewrite it without look-around, word boundaries and back-references; use a grammar for nesting.",
        ) from None
    except EcmaError as error:
        if str(error) == "No text matches":
            raise BadInputError(f"No text matches the regex {pattern!r}.") from None
        raise BadInputError(
            f"{pattern!r} isn't a valid regex: {error}.", r"The dialect is Python's re, with \p{...} added."
        ) from None
    guide = Guide(
        "regex", text, name or f"regex {pattern}", check=_matches(checked, pattern), convert=convert, tree=tree,
        source=pattern,
    )  # fmt: skip
    reason = refusal(guide)
    if reason:
        reason = reason.split("error:")[-1].partition("\n")[0] if "error:" in reason else reason
        raise BadInputError(f"The regex {pattern!r} can't be enforced: {reason.strip():.200}.")
    if matches_nothing(guide):
        raise BadInputError(f"No text matches the regex {pattern!r}.")
    if bounded and pyregex.endless(tree):
        raise BadInputError(
            f"The regex {pattern!r} is unbounded: {unlimited(pattern)!r} has no upper limit, so generation may "
            "never end.",
            "Bound it, as in {0,40}, or set max_tokens (the answer may then be cut off there).",
        )
    return guide


def _matches(checked: str, pattern: str) -> Callable[[str], None]:
    """A validator that uses Python's `re`."""
    compiled = re.compile(checked)

    def check(text: str) -> None:
        if compiled.match(text) is None:
            raise ValueError(f"{text!r:.80} doesn't match the regex {pattern!r:.120}")

    return check


def unlimited(pattern: str) -> str:
    """The first quantifier without an upper limit, or ""."""
    # Blank out escapes and classes: a * or + in them is not a quantifier.
    hidden = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", lambda found: " " * len(found[0]), pattern, flags=re.DOTALL)
    for found in _UNLIMITED.finditer(hidden):
        if found[0] == "+" and found.start() and hidden[found.start() - 1] in "*+?}":
            continue
        return found[0]
    return ""


def choice_guide(choices: Iterable[Any], *, name: str = "") -> Guide:
    """Make a guide for a choice between texts; `parsed` is the chosen item.

    Raises:
        BadInputError: there are no choices, one is empty or isn't a text or number, or one is repeated.
    """
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise BadInputError(f"choice takes a list of texts, got {choices!r:.60}.", "For example ['yes', 'no'].")
    items = list(choices)
    if not items:
        raise BadInputError("The choice is empty.", "Pass at least one text, for example choice=['yes', 'no'].")
    texts: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, str | int | float):
            raise BadInputError(f"A choice must be a text or a number, got {item!r:.60}.", "Use type= for types.")
        text = str(item)
        if not text:
            raise BadInputError("One of the choices is empty.", "Leave it out.")
        if any(GAP[0] <= ord(c) <= GAP[1] for c in text):
            raise BadInputError(f"The choice {text!r:.60} contains a lone surrogate, which no text contains.")
        if text in texts:
            raise BadInputError(f"The choice {text!r} is repeated.", "Leave one out.")
        texts[text] = item
    # One terminal: thousands of alternatives of a rule exceed the mask library's limits.
    lark = f"{_HEAD}start: CHOICE\nCHOICE: /{trie(list(texts))}/\n"

    def check(text: str) -> None:
        if text not in texts:
            raise ValueError(f"{text!r:.80} isn't one of the choices")

    shown = ", ".join(list(texts)[:4]) + (", …" if len(texts) > 4 else "")
    guide = Guide(
        "choice", lark, name or f"choice {shown}", check=check, convert=texts.__getitem__, choices=tuple(texts)
    )
    reason = refusal(guide)
    if reason:
        raise BadInputError(f"The choice can't be enforced: {_first(reason)}.")
    return guide


def trie(texts: list[str]) -> str:
    """A regex that matches exactly these texts; common beginnings are written once."""
    heads: dict[str, list[str]] = {}
    for text in texts:
        if text:
            heads.setdefault(text[0], []).append(text[1:])
    shared = os.path.commonprefix(texts)  # noqa: RUF071 - of texts, not of paths
    if shared:
        rest = [text[len(shared) :] for text in texts]
        return "".join(rust(ord(c)) for c in shared) + (trie(rest) if any(rest) else "")
    parts = [rust(ord(head)) + trie(rest) for head, rest in heads.items()]
    return f"(?:{'|'.join(parts)}){'?' if '' in texts else ''}"


def grammar_guide(text: str, *, name: str = "") -> Guide:
    """Make a guide for a grammar: GBNF (or EBNF with `::=` and a rule `root`), or Lark with a rule `start`.

    Raises:
        BadInputError: it is empty, has no root rule, or is invalid (with the line and column).
    """
    if not isinstance(text, str):
        raise BadInputError(
            f"A grammar must be text, got {type(text).__name__}.", 'For example \'root ::= "a" | "b"\'.'
        )
    if not text.strip():
        raise BadInputError("The grammar is empty.", 'For example \'root ::= "yes" | "no"\'.')
    text = text.removeprefix("\ufeff")
    if any(GAP[0] <= ord(c) <= GAP[1] for c in text):
        raise BadInputError("The grammar contains a lone surrogate, which no text contains.")
    kind: Kind = "gbnf" if _is_gbnf(text) else "lark"
    # The header line marks the text as Lark.
    lark = _gbnf(text) if kind == "gbnf" else text if "%llguidance" in text else f"{_HEAD}{text}"
    if kind == "lark" and not re.search(r"(?m)^\s*[?!]?start\s*(\.\d+)?\s*(\[.*?\])?\s*:", text):
        raise BadInputError("The Lark grammar has no root rule `start`.", 'Add one, as in start: greeting " " name.')
    guide = Guide(kind, lark, name or f"{'GBNF' if kind == 'gbnf' else 'Lark'} grammar", source=text)
    reason = refusal(guide)
    if reason:
        raise BadInputError(f"The {'GBNF' if kind == 'gbnf' else 'Lark'} grammar is invalid: {_first(reason)}.")
    if matches_nothing(guide):
        raise BadInputError("No text satisfies the grammar.")
    return guide


def _is_gbnf(text: str) -> bool:
    """Whether it defines rules with ::= (outside of literals, classes and comments) rather than with a colon."""
    return _GBNF_RULE.search(_LITERALS.sub("", text)) is not None


def _gbnf(text: str) -> str:
    if not re.search(r"(?m)^\s*root\s*::=", text):
        raise BadInputError("The grammar has no root rule `root`.", "Add one, as in root ::= greeting.")
    try:
        return gbnf.lark(text)
    except gbnf.GbnfError as error:
        raise BadInputError(f"The GBNF grammar is invalid: {error}.") from None


def _first(reason: str) -> str:
    lines = [line.strip() for line in reason.strip().splitlines() if line.strip()]
    return (lines[0] if lines else "unknown reason").rstrip(".")[:240]


def refusal(guide: Guide) -> str:
    """Why the mask library refuses a guide; "" if it accepts it."""
    from llguidance import LLMatcher

    failed, reason = LLMatcher.validate_grammar_with_warnings(guide.grammar())
    return reason[0] if failed and reason else ""


def matches_nothing(guide: Guide) -> bool:
    """Whether no text matches, not even the empty one."""
    from llguidance import LLMatcher

    matcher = LLMatcher(bytes_tokenizer(), guide.grammar(), log_level=0)
    if matcher.is_error():
        return False
    matcher.compute_bitmask()
    return matcher.is_stopped() and not matcher.is_accepting()


def bytes_tokenizer() -> Any:
    """A tokenizer of the 256 bytes and an end token, for checking grammars."""
    from llguidance import LLTokenizer

    from llmlab.guided.compiler import Vocabulary

    return LLTokenizer(Vocabulary([bytes([i]) for i in range(256)], (), (256,)), slices=[])
