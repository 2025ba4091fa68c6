"""Tab completion on `%llm` and `%%llm` lines, and after `{{` in a cell's body."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.magics import table
from llmlab.magics.parser import OptionDoc, Parser

if TYPE_CHECKING:
    from llmlab.magics.command import Context

IDENTIFIER = "llmlab"
_LINE = re.compile(r"^\s*(?:[\w.,\s\[\]'\"]+=\s*)?(%%?llm)(?:lab)?(?=\s)")
_BRACES = re.compile(r"(?<!\\)\{\{\s*([A-Za-z_]\w*)?$")


def install(ip: Any, context: Context) -> None:
    """Add the matcher to a shell's completer."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier=IDENTIFIER)  # type: ignore[untyped-decorator]
    def matcher(cursor: Any) -> dict[str, Any]:
        try:
            fragment, found = complete(cursor.full_text, cursor.cursor_line, cursor.cursor_position, context)
        except Exception:  # noqa: BLE001 - Tab must never print a traceback into the user's cell
            fragment, found = "", []
        if not found:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text, type=kind) for text, kind in found],
            "matched_fragment": fragment,
            "suppress": True,
            "ordered": True,
        }

    remove(ip)
    ip.Completer.custom_matchers.append(matcher)


def remove(ip: Any) -> None:
    """Remove the matcher."""
    matchers = ip.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", None) != IDENTIFIER]


def complete(text: str, line_number: int, column: int, context: Context) -> tuple[str, list[tuple[str, str]]]:
    """The completions at a cursor position.

    Args:
        text: the cell's text.
        line_number: the cursor's line, from 0.
        column: the cursor's column, from 0.
        context: the source of models and variables.

    Returns:
            The text that a completion replaces, and (completion, kind) pairs.
    """
    lines = text.split("\n")
    line = lines[min(line_number, len(lines) - 1)][:column]
    first = next((i for i, one in enumerate(lines) if one.strip()), 0)
    in_cell = lines[first].lstrip().startswith("%%llm")
    if in_cell and line_number > first:
        return _in_body(line, context)
    found = _LINE.match(line)
    if found is None or (found.group(1) == "%%llm") != in_cell:
        return "", []
    words, fragment = _words(line[found.end() :])
    if in_cell:
        offers = _argument(table.cell().parser(), words, fragment, context)
    elif not words:
        offers = [(name, "command") for name in table.COMMANDS]
    elif words[0] in table.COMMANDS:
        offers = _argument(table.find(words[0]).parser(), words[1:], fragment, context)
    else:
        offers = []
    lowered = fragment.lower()
    return fragment, [(text, kind) for text, kind in offers if text.lower().startswith(lowered)]


def _words(rest: str) -> tuple[list[str], str]:
    """The finished words, and the word that ends at the cursor."""
    pieces = rest.split()
    if not rest or rest[-1].isspace():
        return pieces, ""
    return pieces[:-1], pieces[-1]


def _argument(parser: Parser, words: list[str], fragment: str, context: Context) -> list[tuple[str, str]]:
    if fragment.startswith("--") and "=" in fragment:
        name, _, _ = fragment.partition("=")
        option = parser.action_for(name)
        return [(f"{name}={text}", kind) for text, kind in _values(option, words, context)] if option else []
    before = parser.action_for(words[-1]) if words else None
    if before is not None and before.value:
        return _values(before, words, context)
    given = set(words)
    options = [
        (name, "option")
        for doc in parser.options()
        if not doc.positional and (doc.many or not given & set(doc.names))
        for name in (doc.names if fragment.startswith("-") else doc.names[-1:])
    ]
    if fragment.startswith("-"):
        return options
    place = _positionals_given(parser, words)
    positional = [doc for doc in parser.options() if doc.positional]
    values = _values(positional[place], words, context) if place < len(positional) else []
    return values + ([] if fragment else options)


def _positionals_given(parser: Parser, words: list[str]) -> int:
    count, skip = 0, False
    for word in words:
        option = parser.action_for(word)
        if skip:
            skip = False
        elif option is not None:
            skip = bool(option.value)
        elif not word.startswith("-"):
            count += 1
    return count


def _values(option: OptionDoc, words: list[str], context: Context) -> list[tuple[str, str]]:
    if option.choices:
        return [(choice, "value") for choice in option.choices]
    source = SOURCES.get(option.completes)
    return [(name, option.completes) for name in source(words, context)] if source else []


def _models(_words: list[str], context: Context) -> Iterable[str]:
    return context.lab.models


def _catalogue(_words: list[str], _context: Context) -> Iterable[str]:
    from llmlab.hub.catalogue import entries

    return [entry.name for entry in entries()]


def _quants(words: list[str], _bench: Context) -> Iterable[str]:
    from llmlab.engines.registry import ENGINES
    from llmlab.files.tags import names

    engine = words[words.index("--engine") + 1] if "--engine" in words[:-1] else None
    return names(next((name for name in ENGINES if name == engine), None))


def _extras(words: list[str], _context: Context) -> Iterable[str]:
    from llmlab.engines.registry import ENGINES, engine_class, installed

    engine = words[words.index("--engine") + 1] if "--engine" in words[:-1] else None
    keys: dict[str, None] = {}
    for name in ENGINES:
        if engine in (name, None, "auto") and installed(name):
            keys.update(dict.fromkeys(f"{key}=" for key in engine_class(name).capabilities.extra))
    return keys


def _cached(_words: list[str], _context: Context) -> Iterable[str]:
    from llmlab.hub.cache import on_disk

    made = {one.name for one in on_disk() if one.kind == "made"}
    known = set(_catalogue([], _context))
    # Files made from the user's own folder are removed by the folder's path, not by their name.
    return dict.fromkeys(one.name for one in on_disk() if one.kind != "made" or one.name in made & known)


def _authors(_words: list[str], _context: Context) -> Iterable[str]:
    from llmlab.hub.catalogue import trusted

    return trusted()


def _adapters(words: list[str], context: Context) -> Iterable[str]:
    named = next((words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-m", "--model")), None)
    model = context.lab.models.get(named) if named else context.lab.current
    attached = [*(model.adapters if model is not None else ()), "none"]
    if words[:1] == ["add"]:
        return _shipped(words, context)
    return attached[:-1] if words[:1] in (["rm"], ["merge"]) else attached


def _shipped(_words: list[str], _context: Context) -> Iterable[str]:
    from llmlab.adapters.library import names

    return names()


def _variables(_words: list[str], context: Context) -> Iterable[str]:
    shell = context.shell
    return [n for n in shell.user_ns if not n.startswith("_") and n not in shell.user_ns_hidden]


def _scorers(words: list[str], context: Context) -> Iterable[str]:
    """The built-in scorers, then the variables that hold functions."""
    from llmlab.experiments.scorers import BUILT_IN

    names = context.shell.user_ns
    return [*BUILT_IN, *(name for name in _variables(words, context) if callable(names[name]))]


def _servers(_words: list[str], context: Context) -> Iterable[str]:
    """The address of the lab's own server, and where servers on this machine listen by default."""
    own = [context.lab.server.url] if context.lab.server is not None else []
    return dict.fromkeys([*own, *(f"http://127.0.0.1:{port}" for port in (8000, 8080, 11434, 1234, 30000))])


def _recordings(_words: list[str], _context: Context) -> Iterable[str]:
    """Files of recorded answers in this folder."""
    return [*sorted(path.name for path in Path().glob("*.jsonl")), "off"]


def _keys(_words: list[str], _context: Context) -> Iterable[str]:
    """The names of the variables that may hold a key; never their values."""
    return sorted(name for name in os.environ if re.search(r"KEY|TOKEN|SECRET", name, re.IGNORECASE))


def _commands(_words: list[str], _context: Context) -> Iterable[str]:
    return [*table.COMMANDS, "cell"]


def _tasks(_words: list[str], _context: Context) -> Iterable[str]:
    from llmlab.evaluation.tasks import included

    return included()


SOURCES: dict[str, Callable[[list[str], Context], Iterable[str]]] = {
    "model": _models,
    "catalogue": _catalogue,
    "cached": _cached,
    "author": _authors,
    "quant": _quants,
    "extra": _extras,
    "variable": _variables,
    "adapter": _adapters,
    "shipped": _shipped,
    "command": _commands,
    "scorer": _scorers,
    "server": _servers,
    "recording": _recordings,
    "task": _tasks,
    "key": _keys,
    "think": lambda _words, _context: ("on", "off", "low", "medium", "high"),
}


def _in_body(line: str, context: Context) -> tuple[str, list[tuple[str, str]]]:
    found = _BRACES.search(line)
    if found is None:
        return "", []
    fragment = found.group(1) or ""
    return fragment, [(n, "variable") for n in _variables([], context) if n.startswith(fragment)]
