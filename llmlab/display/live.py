"""Displays updated while something runs: one output in a notebook, plain printing in a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from llmlab._hooks import one_display
from llmlab.display.completion import Format, Thought, bundle, completion_bundle
from llmlab.render import units
from llmlab.render.safe import BOX, escape, plain
from llmlab.render.table import QUIET
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.types import Completion

Item = TypeVar("Item")

UPDATE_EVERY_S = 0.1
# A shorter load shows no bar.
BAR_AFTER_S = 0.2


def has_front_end(shell: Any) -> bool:
    """Whether displays can be updated in place: a kernel with a front end, or something that captures displays.

    A plain terminal's publisher prints each update below the last one.
    """
    from IPython.core.displaypub import DisplayPublisher

    return type(shell.display_pub) is not DisplayPublisher


def is_watched(shell: Any) -> bool:
    """Whether updates of a display are visible: not when papermill or nbclient executes a notebook.

    These don't allow input, and their log (papermill's `--log-output`) has only the first version of a display, without
    its updates. So each display is sent once, complete.
    """
    kernel = getattr(shell, "kernel", None)
    return kernel is None or bool(getattr(kernel, "_allow_stdin", True))


class Handle:
    """One output of a cell that is updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    @property
    def shown(self) -> bool:
        """Whether something was displayed."""
        return self._handle is not None

    def show(self, data: dict[str, str]) -> None:
        """Display a MIME bundle, replacing the previous one."""
        from IPython.display import DisplayHandle

        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(data, raw=True)
        else:
            self._handle.update(data, raw=True)


class Answer:
    """A streaming answer: at most ten updates per second, then the complete answer with its status line.

    Args:
        shell: the IPython shell; decides between updating in place and printing.
        fmt: how to show the text.
        n: number of choices.
        stream: False shows only the complete answer.
    """

    def __init__(self, shell: Any, *, fmt: Format, n: int, stream: bool = True) -> None:
        self._in_place = has_front_end(shell)
        self._fmt = fmt
        self._stream = stream and is_watched(shell)
        self._n = n
        self._handle = Handle()
        self._seen: tuple[list[str], list[Thought]] = ([], [])
        self._printer: Printer | None = None

    def update(self, texts: Sequence[str], thoughts: Sequence[Thought] = (), *, last: bool = False) -> None:
        """Show the text so far; call it about every `UPDATE_EVERY_S`.

        Args:
            texts: the choices' texts.
            thoughts: their thoughts.
            last: no more text will follow, and no `finish`; shown even if answers aren't streamed.
        """
        now = (list(texts), list(thoughts))
        if not (self._stream or last) or now == self._seen or not (any(texts) or any(n for _, n in thoughts)):
            return
        self._seen = now
        if self._in_place:
            self._handle.show(bundle(texts, fmt=self._fmt, final=False, thoughts=thoughts))
        elif self._n == 1 and self._fmt != "json":
            self._print(thoughts[0][0] if thoughts else "", texts[0])

    def finish(self, completion: Completion) -> None:
        """Show the complete answer; in a terminal without the status line, which is the cell's value there."""
        if self._in_place:
            self._handle.show(completion_bundle(completion, self._fmt))
            return
        if self._printer is not None:
            self._print(completion.reasoning, completion.text)
            self._printer.finish()
            return
        sys.stdout.write(completion_bundle(completion, self._fmt, with_line=False)["text/plain"] + "\n")
        sys.stdout.flush()

    def _print(self, thought: str, text: str) -> None:
        self._printer = self._printer or Printer()
        self._printer.show(thought, text)


def quiet(text: str) -> str:
    """The text dimmed, if standard output is a terminal."""
    return f"\x1b[2m{text}\x1b[0m" if text and sys.stdout.isatty() else text


class Printer:
    """Prints growing texts to a terminal: a dim thought, then the answer. Text is only appended.

    Example:
        >>> printer = llmlab.display.live.Printer()
        >>> printer.show("", "The capital")
        The capital
        >>> printer.show("", "The capital of France")
         of France
    """

    def __init__(self) -> None:
        self._thought = self._text = ""

    def show(self, thought: str, text: str) -> None:
        """Print what is new.

        Args:
            thought: a reasoning model's thought so far.
            text: the answer so far.
        """
        # A carriage return at the end may be half of a line break, of which `plain` makes one character.
        thought, text = (plain(one.removesuffix("\r")) for one in (thought, text))
        if new := thought[len(self._thought) :]:
            sys.stdout.write(quiet(new))
            self._thought = thought
        if new := text[len(self._text) :]:
            if self._thought and not self._text:
                sys.stdout.write("\n\n")
            sys.stdout.write(new)
            self._text = text
        sys.stdout.flush()

    def finish(self) -> None:
        """End the last line."""
        if not (self._text or self._thought):
            sys.stdout.write("(no text)")
        if not self._text.endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()


class ProgressBar:
    """The phases of a load in one display: shown if it takes long, replaced by one line at the end.

    Call it with (phase, fraction or None), as `Lab.load(progress=...)` does.

    Args:
        shell: the IPython shell; decides between updating in place and printing.
        title: what is running.
        after_s: seconds before the bar is shown.
    """

    def __init__(self, shell: Any, title: str, *, after_s: float = BAR_AFTER_S) -> None:
        self._in_place = has_front_end(shell)
        self._watched = is_watched(shell)
        self._title = title
        self._after_s = after_s
        self._handle = Handle()
        self._started = time.monotonic()
        self._last = 0.0
        self._drawn = 0

    def __call__(self, phase: str, fraction: float | None) -> None:
        """Show the progress; updates are rate-limited."""
        now = time.monotonic()
        elapsed = now - self._started
        if not self._watched or elapsed < self._after_s or now - self._last < UPDATE_EVERY_S:
            return
        self._last = now
        done = None if fraction is None else min(max(fraction, 0.0), 1.0)
        share = "" if done is None else f"{100 * done:.0f} %"
        cells = "·" * 20 if done is None else ("█" * round(20 * done)).ljust(20, "░")
        text = " ".join(part for part in (f"{self._title}: {phase}", cells, share, units.seconds(elapsed)) if part)
        if self._in_place:
            value = "" if done is None else f' value="{done:.3f}"'
            html = (
                f'<div class="{BOX}">{escape(self._title)}: {escape(phase)} <progress max="1"{value}></progress> '
                f'<span style="{QUIET}">{share} {units.seconds(elapsed)}</span></div>'
            )
            self._handle.show({"text/plain": plain(text), "text/html": html})
        elif sys.stderr.isatty():
            line = plain(text)
            sys.stderr.write("\r" + line.ljust(self._drawn))
            sys.stderr.flush()
            self._drawn = len(line)

    def finish(self, line: str) -> None:
        """Replace the bar with the final line (in a terminal, the cell's value shows it)."""
        self._clear()
        if self._in_place:
            html = f'<div class="{BOX}"><span style="{QUIET}">{escape(line)}</span></div>'
            self._handle.show({"text/plain": plain(line), "text/html": html})

    def stop(self, line: str) -> None:
        """Replace a visible bar with the reason why there is no result; the error itself is raised elsewhere."""
        if self._handle.shown:
            self.finish(line)
        else:
            self._clear()

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r" + " " * self._drawn + "\r")
            sys.stderr.flush()
            self._drawn = 0


@contextmanager
def progress_bar(title: str, given: Progress | None) -> Iterator[Progress]:
    """The given progress callback; without one, a bar in a notebook, which ends as one line.

    Requests inside show no bar of their own.

    Args:
        title: what is running.
        given: the caller's callback.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    # A display from another thread appears in whichever cell is running.
    if given is not None:
        with one_display():
            yield given
        return
    if shell is None or threading.current_thread() is not threading.main_thread():
        yield lambda _phase, _fraction: None
        return
    bar, started = ProgressBar(shell, title), time.monotonic()
    try:
        with one_display():
            yield bar
    except BaseException:
        bar.stop(f"{title}: stopped after {units.seconds(time.monotonic() - started)}")
        raise
    bar.stop(f"{title}: {units.seconds(time.monotonic() - started)}")


def counted(items: Sequence[Item], title: str, unit: str, *, after_s: float) -> Iterator[Item]:
    """Yield the items, with a progress bar if they take long; in a notebook it ends as one line.

    Args:
        items: the items to iterate over.
        title: what is running ("generating").
        unit: the noun for one item ("prompt").
        after_s: seconds before the bar is shown.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    # A display from another thread appears in whichever cell is running.
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
