"""`%llm` and `%%llm` as IPython knows them, and what `%load_ext llmlab` puts into a shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from llmlab.magics import completion, formatters, helptext
from llmlab.magics.command import Bench, Command
from llmlab.magics.parser import HelpAsked, split
from llmlab.magics.silence import Silence
from llmlab.magics.table import cell, find

if TYPE_CHECKING:
    from llmlab.session import Lab


@magics_class
class LlmMagics(Magics):  # type: ignore[misc]
    """The two magics. They parse, call and return an object; the work is in the commands."""

    def __init__(self, shell: Any, find_lab: Callable[[], Lab]) -> None:
        super().__init__(shell)
        self.bench = Bench(shell, find_lab, Silence(shell))

    @line_magic("llm")  # type: ignore[untyped-decorator]
    def line(self, line: str) -> object:
        """Load, list, show and manage models; see `%llm help`."""
        words = split(line)
        if not words:
            return helptext.HelpView(helptext.overview())
        if words[0] in ("-h", "--help"):
            return helptext.HelpView(helptext.overview(long=True))
        return self._run(find(words[0]), words[1:])

    @cell_magic("llm")  # type: ignore[untyped-decorator]
    def cell(self, line: str, body: str) -> object:
        """Ask the current model; see `%llm help cell`."""
        return self._run(cell(), split(line), body)

    def _run(self, command: type[Command], words: list[str], body: str | None = None) -> object:
        try:
            args = command.parser().parse_words(words)
        except HelpAsked:
            return helptext.HelpView(helptext.page_of(command))
        if body is not None:
            args.body = body
        return command.run(args, self.bench)


# `%llm?` asks for `getdoc`: the help is made from the parsers when someone looks, not at every start.
LlmMagics.line.getdoc = lambda: helptext.overview(long=True)
LlmMagics.cell.getdoc = lambda: helptext.page_of(cell())


def register(ip: Any, lab: Lab | Callable[[], Lab]) -> None:
    """Put `%llm`, `%%llm`, their Tab completion and the rich reprs into a shell.

    Args:
        ip: the IPython shell.
        lab: the bench, or what gives it when it's first needed.
    """
    unregister(ip)
    find_lab: Callable[[], Lab] = lab if callable(lab) else lambda: lab
    magics = LlmMagics(ip, find_lab)
    ip.register_magics(magics)
    completion.install(ip, magics.bench)
    formatters.install(ip)


def unregister(ip: Any) -> None:
    """Take all of it out again; harmless when nothing is there."""
    magics = ip.magics_manager.registry.pop(LlmMagics.__name__, None)
    if magics is None:
        return
    for kind in ("line", "cell"):
        ip.magics_manager.magics[kind].pop("llm", None)
    magics.bench.silence.remove()
    completion.remove(ip)
    formatters.remove(ip)
