"""Help generated from the parsers: the list of commands, a command's page, the docstrings of `%llm?` and `%%llm?`."""

from __future__ import annotations

import re
import textwrap

from llmlab.magics import table
from llmlab.magics.command import Command, CommandDoc
from llmlab.render.safe import escape
from llmlab.render.table import MONO, View

WIDTH = 100
CELL = "%%llm"


class HelpView(View):
    """A page of help."""

    def __init__(self, page: str) -> None:
        self.page = page

    def text(self) -> str:
        """The page."""
        return self.page

    def html(self) -> str:
        """The page, monospaced."""
        style = f"white-space:pre-wrap;margin:0;{MONO};color:inherit;background:none"
        return f'<pre style="{style}">{escape(self.page)}</pre>'


def page_of(command: type[Command]) -> str:
    """One command's page: usage, what it does, its arguments, examples."""
    doc = command.doc()
    parts = [
        f"{doc.name}: {doc.summary}",
        "Usage\n" + _usage(doc.usage),
    ]
    if doc.details:
        paragraphs = textwrap.dedent(doc.details).strip().split("\n\n")
        parts.append("\n\n".join(textwrap.fill(paragraph, WIDTH) for paragraph in paragraphs))
    if doc.options:
        parts.append("Arguments\n" + _arguments(doc))
    if doc.examples:
        parts.append("Examples\n" + "\n".join(_example(typed, does) for typed, does in doc.examples))
    return "\n\n".join(parts)


def overview() -> str:
    """All commands in groups, one line each, on one screen."""
    grouped = {name for group in table.GROUPS.values() for name in group}
    groups = {**table.GROUPS, "More": tuple(name for name in table.COMMANDS if name not in grouped)}
    left = max(map(len, groups))
    width = max(map(len, table.COMMANDS)) + len("%llm ")
    lines = []
    for title, group in groups.items():
        for place, name in enumerate(one for one in group if one == CELL or one in table.COMMANDS):
            typed = name if name == CELL else f"%llm {name}"
            summary = (table.cell() if name == CELL else table.find(name)).summary
            lines.append(f"{title if place == 0 else '':<{left}}  {typed:<{width}}  {summary}")
    return "\n".join([*lines, "", "A command's page: %llm help COMMAND. The options of %%llm: %llm help cell."])


def reference() -> list[CommandDoc]:
    """The documentation of every command, from which the reference page is generated."""
    return [command.doc() for command in table.everything()]


def _usage(line: str) -> str:
    """The usage, wrapped between its arguments and never inside one."""
    line = re.sub(r"\[[^\]]*\]", lambda argument: argument.group().replace(" ", "\u00a0"), line)
    wrapped = textwrap.fill(
        line, WIDTH, initial_indent="  ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
    return wrapped.replace("\u00a0", " ")


def _arguments(doc: CommandDoc) -> str:
    lines = []
    for option in doc.options:
        value = "|".join(option.choices) or option.value
        head = option.names[0] if option.positional else " ".join(filter(None, (", ".join(option.names), value)))
        many = " ..." if option.many and not option.positional else ""
        body = textwrap.wrap(option.help, WIDTH - 32)
        lines.append(f"  {head + many:<28}  {body[0] if body and len(head + many) <= 28 else ''}".rstrip())
        rest = body[1:] if len(head + many) <= 28 else body
        lines += [" " * 32 + line for line in rest]
    return "\n".join(lines)


def _example(typed: str, does: str) -> str:
    return textwrap.indent(typed, "  ") + (f"\n      {does}" if does else "")
