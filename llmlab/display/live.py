"""Displays that change while something runs: one handle in a notebook, plain printing in a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llmlab.display.completion import Format, bundle, completion_bundle
from llmlab.render import units
from llmlab.render.safe import escape, plain
from llmlab.render.table import QUIET

if TYPE_CHECKING:
    from llmlab.types import Completion

Item = TypeVar("Item")

UPDATE_EVERY_S = 0.1
# A load that is over sooner shows no bar at all.
BAR_AFTER_S = 0.2


def has_front_end(shell: Any) -> bool:
    """Whether displays can be updated: a kernel with a front end, or something that captures displays.

    A plain terminal's publisher prints each update below the last one.
    """
    from IPython.core.displaypub import DisplayPublisher

    return type(shell.display_pub) is not DisplayPublisher


class Handle:
    """One output of a cell, shown and then replaced in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    @property
    def shown(self) -> bool:
        """Something was shown."""
        return self._handle is not None

    def show(self, data: dict[str, str]) -> None:
        """Show a MIME bundle, in place of what was shown before."""
        from IPython.display import DisplayHandle

        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(data, raw=True)
        else:
            self._handle.update(data, raw=True)


class Answer:
    """An answer as it grows: at most ten updates a second, then the whole with its quiet line.

    Args:
        shell: the IPython shell; decides between updating in place and printing.
        fmt: how to show the text.
        n: number of choices.
        stream: False shows the end only.
    """

    def __init__(self, shell: Any, *, fmt: Format, n: int, stream: bool = True) -> None:
        self._in_place = has_front_end(shell)
        self._fmt = fmt
        self._stream = stream
        self._n = n
        self._handle = Handle()
        self._seen: list[str] = []
        self._printed = ""

    def update(self, texts: Sequence[str]) -> None:
        """Show what there is so far; call it about every `UPDATE_EVERY_S`."""
        if not self._stream or list(texts) == self._seen or not any(texts):
            return
        self._seen = list(texts)
        if self._in_place:
            self._handle.show(bundle(texts, fmt=self._fmt, final=False))
        elif self._n == 1 and self._fmt != "json":
            self._print_more(texts[0])

    def finish(self, completion: Completion) -> None:
        """Show the whole; in a terminal without its quiet line, which stands where the cell's value does."""
        if self._in_place:
            self._handle.show(completion_bundle(completion, self._fmt))
            return
        if self._printed:
            self._print_more(completion.text)
        else:
            sys.stdout.write(completion_bundle(completion, self._fmt, with_line=False)["text/plain"])
        sys.stdout.write("\n")
        sys.stdout.flush()

    def _print_more(self, text: str) -> None:
        # Text is only ever added, and so is its plain form: no pattern of `plain` reaches over a piece's end but \r\n.
        whole = plain(text)
        sys.stdout.write(whole[len(self._printed) :])
        sys.stdout.flush()
        self._printed = whole


class ProgressBar:
    """Phases of a load in one display: shown when it takes long, replaced by one line at the end.

    Call it with (phase, fraction or None), as `Lab.load(progress=...)` does.

    Args:
        shell: the IPython shell; decides between updating in place and printing.
        title: what goes on.
        after_s: what is over sooner shows no bar.
    """

    def __init__(self, shell: Any, title: str, *, after_s: float = BAR_AFTER_S) -> None:
        self._in_place = has_front_end(shell)
        self._title = title
        self._after_s = after_s
        self._handle = Handle()
        self._started = time.monotonic()
        self._last = 0.0
        self._drawn = 0

    def __call__(self, phase: str, fraction: float | None) -> None:
        """Show how far it is; called as often as one likes."""
        now = time.monotonic()
        elapsed = now - self._started
        if elapsed < self._after_s or now - self._last < UPDATE_EVERY_S:
            return
        self._last = now
        done = None if fraction is None else min(max(fraction, 0.0), 1.0)
        share = "" if done is None else f"{100 * done:.0f} %"
        cells = "·" * 20 if done is None else ("█" * round(20 * done)).ljust(20, "░")
        text = " ".join(part for part in (f"{self._title}: {phase}", cells, share, units.seconds(elapsed)) if part)
        if self._in_place:
            value = "" if done is None else f' value="{done:.3f}"'
            html = (
                f'<div class="llmlab">{escape(self._title)}: {escape(phase)} <progress max="1"{value}></progress> '
                f'<span style="{QUIET}">{share} {units.seconds(elapsed)}</span></div>'
            )
            self._handle.show({"text/plain": plain(text), "text/html": html})
        elif sys.stderr.isatty():
            line = plain(text)
            sys.stderr.write("\r" + line.ljust(self._drawn))
            sys.stderr.flush()
            self._drawn = len(line)

    def finish(self, line: str) -> None:
        """Put the one line that stays in the bar's place (in a terminal it stands where the cell's value does)."""
        self._clear()
        if self._in_place:
            html = f'<div class="llmlab"><span style="{QUIET}">{escape(line)}</span></div>'
            self._handle.show({"text/plain": plain(line), "text/html": html})

    def stop(self, line: str) -> None:
        """Say why it ended without a result; only where a bar is being shown (an error says the rest)."""
        if self._handle.shown:
            self.finish(line)
        else:
            self._clear()

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r" + " " * self._drawn + "\r")
            sys.stderr.flush()
            self._drawn = 0


def counted(items: Sequence[Item], title: str, unit: str, *, after_s: float) -> Iterator[Item]:
    """The items one by one, with a bar when they take long: in a notebook one display, which ends as a quiet line.

    Args:
        items: what is gone through.
        title: what goes on ("generating").
        unit: what one is ("prompt").
        after_s: what is over sooner shows no bar.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    # What another thread displays lands in whichever cell runs.
    if shell is None or not has_front_end(shell) or threading.current_thread() is not threading.main_thread():
        from tqdm import tqdm

        yield from tqdm(items, desc=title, unit=unit, delay=after_s, leave=False, disable=None)
        return
    started = time.monotonic()
    bar = ProgressBar(shell, title, after_s=after_s)
    done = 0
    try:
        for item in items:
            yield item
            done += 1
            bar(units.count(done, unit), done / len(items))
    finally:
        bar.stop(f"{title}: {units.count(done, unit)} in {units.seconds(time.monotonic() - started)}")
