"""The IPython magics `%llm` and `%%llm`, and what `%load_ext llmlab` adds to a shell."""

from __future__ import annotations

import inspect
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, needs_local_scope, no_var_expand

from llmlab.errors import LlmLabError
from llmlab.machine import turns
from llmlab.magics import completion, formatters, helptext
from llmlab.magics.command import CONTINUE, Command, Context
from llmlab.magics.expansion import Word, words
from llmlab.magics.parser import HelpAsked
from llmlab.magics.silence import Silence
from llmlab.magics.table import cell, find

if TYPE_CHECKING:
    from llmlab.session import Lab


OTHER_NAME = "llmlab"
"""The magics' name if another extension has `%llm`."""


@magics_class
class LlmMagics(Magics):  # type: ignore[misc]
    """The two magics. They parse the line and run the command."""

    def __init__(self, shell: Any, find_lab: Callable[[], Lab]) -> None:
        super().__init__(shell)
        self.context = Context(shell, find_lab, Silence(shell))

    @no_var_expand  # type: ignore[untyped-decorator]
    @needs_local_scope  # type: ignore[untyped-decorator]
    @line_magic("llm")  # type: ignore[untyped-decorator]
    def line(self, line: str, local_ns: dict[str, Any] | None = None) -> object:
        """Load, list, show and manage models; see `%llm help`."""
        found = words(line)
        if not found or found[0].typed in ("-h", "--help"):
            return helptext.HelpView(helptext.overview())
        # In a function, local variables take precedence.
        names = ChainMap(local_ns if local_ns is not None else {}, self.shell.user_ns)
        if found[0].typed == CONTINUE:  # IPython has no cell magic without a body
            return self._run(cell(), found, names, "")
        return self._run(find(found[0].typed), found[1:], names)

    @no_var_expand  # type: ignore[untyped-decorator]
    @cell_magic("llm")  # type: ignore[untyped-decorator]
    def cell(self, line: str, body: str) -> object:
        """Prompt the current model; see `%llm help cell`."""
        return self._run(cell(), words(line), self.shell.user_ns, body)

    def _run(
        self, command: type[Command], line: Sequence[Word], names: Mapping[str, Any], body: str | None = None
    ) -> object:
        parser = command.parser()
        try:
            args = parser.parse_words(parser.fill(line, names))
        except HelpAsked:
            return helptext.HelpView(helptext.page_of(command))
        if body is not None:
            args.body = body
        return command.run(args, self.context)


# `%llm?` calls `getdoc`: the help is generated from the parsers on request, not at every start.
LlmMagics.line.getdoc = helptext.overview
LlmMagics.cell.getdoc = lambda: helptext.page_of(cell())


def register(ip: Any, lab: Lab | Callable[[], Lab]) -> None:
    """Add `%llm`, `%%llm`, their Tab completion and the rich reprs to a shell.

    Args:
        ip: the IPython shell.
        lab: the Lab, or a function that returns it at first use.
    """
    unregister(ip)
    find_lab: Callable[[], Lab] = lab if callable(lab) else lambda: lab
    magics = LlmMagics(ip, find_lab)
    owner = _other_owner(ip)
    if owner:
        _rename(magics)
        taken = LlmLabError(
            f"%llm belongs to {owner}, so llmlab's magics are %llmlab and %%llmlab here.",
            "To have %llm: unload that extension (%unload_ext), then %reload_ext llmlab.",
        )
        warnings.warn(str(taken), stacklevel=2)
    ip.register_magics(magics)
    completion.install(ip, magics.context)
    formatters.install(ip)
    ip.events.register("post_run_cell", _after_cell)


def _other_owner(ip: Any) -> str:
    """The module that registered a magic named llm before llmlab, or ""."""
    for kind in ("line", "cell"):
        found = ip.magics_manager.magics[kind].get("llm")
        if found is not None:
            owner = getattr(found, "__self__", None)
            return str(type(owner).__module__ if owner is not None else getattr(found, "__module__", "") or "a cell")
    return ""


def _rename(magics: LlmMagics) -> None:
    """Give an instance's magics the other name; IPython registers them by these tables."""
    for names in magics.magics.values():
        names[OTHER_NAME] = names.pop("llm")


def reloading(ip: Any) -> bool:
    """Whether `%reload_ext` is unloading the extension, to load it again. IPython doesn't report that."""
    code = type(ip.extension_manager).reload_extension.__code__
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def unregister(ip: Any) -> None:
    """Remove all of it; does nothing if it isn't registered."""
    magics = ip.magics_manager.registry.pop(LlmMagics.__name__, None)
    if magics is None:
        return
    for kind, names in magics.magics.items():
        known = ip.magics_manager.magics[kind]
        for name, function in names.items():
            if known.get(name) == function:  # another extension may have taken the name since
                del known[name]
    magics.context.silence.remove()
    completion.remove(ip)
    formatters.remove(ip)
    ip.events.unregister("post_run_cell", _after_cell)


def _after_cell(*_: Any) -> None:
    """End the threads that torch keeps for the main thread: they slow down loaded models."""
    turns.end_team()
