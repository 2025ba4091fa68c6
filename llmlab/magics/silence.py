"""Suppresses the display of a result that a magic already displayed, while keeping it in `_` and `Out`."""

from __future__ import annotations

import re
import sys
from typing import Any


class Silence:
    """Keeps IPython from displaying one object once, as the result of the running cell.

    IPython calls its `_ipython_display_` formatter first: if a printer registered there returns, the object counts as
    displayed; if it raises NotImplementedError, the object is displayed as usual. `_`, `Out[n]` and the result of
    `run_cell` have the object in both cases.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._marked: tuple[object, int] | None = None
        self._types: set[type] = set()
        self._last_line: str | None = None
        self._line = ""
        shell.events.register("pre_run_cell", self._before_cell)

    def mark(self, value: Any, typed: str | tuple[str, ...], line: str) -> Any:
        """Return the value, and suppress its display if it is the result of the cell.

        A plain terminal has already printed `Out[n]:` when the value is formatted, so the status line is printed there.

        Args:
            value: the magic's return value.
            typed: how the cell's last line starts if the value is its result ("%llm load"), or several such starts; in
                a cell that continues after the magic (`m = %llm load nano`, then `display(m)`), nothing is suppressed.
            line: the status line, which a front end has already shown and a terminal has not.
        """
        from llmlab.display.live import has_front_end
        from llmlab.render.safe import plain

        self._line = "" if has_front_end(self._shell) else plain(line) + "\n"
        if self._last_line is not None and not self._last_line.startswith(typed):
            sys.stdout.write(self._line)
            return value
        if type(value) not in self._types:
            self._types.add(type(value))
            self._formatter.for_type(type(value), self._printer)
        self._marked = (value, self._shell.execution_count)
        return value

    def remove(self) -> None:
        """Restore IPython's formatter."""
        self._shell.events.unregister("pre_run_cell", self._before_cell)
        for kind in self._types:
            self._formatter.pop(kind, None)
        self._types.clear()
        self._marked = None

    @property
    def _formatter(self) -> Any:
        return self._shell.display_formatter.ipython_display_formatter

    def _before_cell(self, info: Any) -> None:
        self._marked = None
        text = str(info.raw_cell or "").strip()
        line = text.split("\n")[0 if text.startswith("%%") else -1].strip()
        self._last_line = re.sub(r"^(%%?llm)lab\b", r"\1", line)  # the magics' other name

    def _printer(self, value: object) -> None:
        marked, self._marked = self._marked, None
        if marked is not None and marked[0] is value and marked[1] == self._shell.execution_count:
            sys.stdout.write(self._line)
            return
        self._marked = marked
        raise NotImplementedError
