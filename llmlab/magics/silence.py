"""A value that a magic showed itself must not be shown again as the cell's result, yet stay in `_` and `Out`."""

from __future__ import annotations

import sys
from typing import Any

from llmlab.display.live import has_front_end
from llmlab.render.safe import plain


class Silence:
    """Keeps IPython from showing one object once, as the result of the cell that runs now.

    IPython asks its `_ipython_display_` formatter first; a printer registered there that returns means "shown", and
    one that raises NotImplementedError means "not mine", so all else is shown as ever. `_`, `Out[n]` and the result
    of `run_cell` hold the object all the same.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._marked: tuple[object, int] | None = None
        self._types: set[type] = set()
        self._last_line: str | None = None
        self._line = ""
        shell.events.register("pre_run_cell", self._before_cell)

    def mark(self, value: Any, typed: str, line: str) -> Any:
        """Return the value; it stays quiet if it's the result of the cell.

        A plain terminal has printed `Out[n]:` by the time the value is asked for: the quiet line goes there.

        Args:
            value: what the magic returns.
            typed: how the cell's last line begins if the value is its result ("%llm load"); in a cell that goes on
                after the magic (`m = %llm load nano`, then `display(m)`), nothing is kept quiet.
            line: the quiet line, which a front end has been shown with the rest, and a terminal has not.
        """
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
        """Leave IPython as it was."""
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
        self._last_line = text.split("\n")[0 if text.startswith("%%") else -1].strip()

    def _printer(self, value: object) -> None:
        marked, self._marked = self._marked, None
        if marked is not None and marked[0] is value and marked[1] == self._shell.execution_count:
            sys.stdout.write(self._line)
            return
        self._marked = marked
        raise NotImplementedError
