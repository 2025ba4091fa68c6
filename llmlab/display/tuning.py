"""The progress and the result of a tuning run: a bar and the loss curve in one display."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmlab.display.live import UPDATE_EVERY_S, Handle, has_front_end, is_watched
from llmlab.render import units
from llmlab.render.safe import BOX, escape, plain
from llmlab.render.table import FONT, QUIET, View, pairs_html, pairs_text

if TYPE_CHECKING:
    from llmlab.training.result import Point, TrainingProgress, Tuned

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 460, 150, 44, 18
# The training loss is noisy: plot its mean over this share of the run.
_SMOOTH = 0.05


class TunedView(View):
    """A tuned adapter: its settings, losses and folder."""

    def __init__(self, tuned: Tuned) -> None:
        self.tuned = tuned

    def _pairs(self) -> list[tuple[str, str]]:
        tuned = self.tuned
        held = f"{units.count(tuned.rows, 'conversation')}, {tuned.heldout_rows} held out"
        pairs = [("adapter", f"{tuned.name}: {tuned.summary()}"), ("data", held), ("folder", str(tuned.path))]
        if tuned.attached:
            pairs.append(("attached", f"to {tuned.attached}: %%llm -a {tuned.name}, or %llm lora use {tuned.name}"))
        return pairs + [("note", note) for note in tuned.notes]

    def text(self) -> str:
        """Names and values."""
        return pairs_text(self._pairs())

    def html(self) -> str:
        """Names and values, and the curve."""
        return pairs_html(self._pairs()) + curve_svg(self.tuned.curve, self.tuned.steps)


class TuneDisplay:
    """A progress callback with a display: updated in place in a front end, one line in a terminal, else nothing.

    Args:
        shell: the IPython shell, or None.
    """

    def __init__(self, shell: Any = None) -> None:
        self._in_place = shell is not None and has_front_end(shell)
        self._watched = is_watched(shell)
        self._handle = Handle()
        self._started = time.monotonic()
        self._last = 0.0
        self._drawn = 0
        self._phase = ""

    def __call__(self, progress: TrainingProgress) -> None:
        """Show the progress; updates are rate-limited."""
        now = time.monotonic()
        # A phase is shown as it begins; the steps of the training are rate-limited.
        if not self._watched or (progress.phase == self._phase and now - self._last < UPDATE_EVERY_S):
            return
        self._phase = progress.phase
        self._last = now
        line = plain(progress_line(progress, now - self._started))
        if self._in_place:
            share = f' value="{progress.step / progress.steps:.3f}"' if progress.steps else ""
            html = (
                f'<div class="{BOX}" style="{FONT}"><progress max="1"{share}></progress> '
                f'<span style="{QUIET}">{escape(line)}</span>{curve_svg(progress.curve, progress.steps)}</div>'
            )
            self._handle.show({"text/plain": line, "text/html": html})
        elif sys.stderr.isatty():
            sys.stderr.write("\r" + line.ljust(self._drawn))
            sys.stderr.flush()
            self._drawn = len(line)

    def finish(self, tuned: Tuned) -> None:
        """Replace the display with the result (in a terminal, the cell's value shows it)."""
        self._clear()
        if self._in_place:
            view = TunedView(tuned)
            self._handle.show({"text/plain": view.text(), "text/html": view._repr_html_()})

    def stop(self, line: str) -> None:
        """Replace a visible display with the reason why there is no result; the error itself is raised elsewhere."""
        self._clear()
        if self._handle.shown:
            self._handle.show({"text/plain": plain(line), "text/html": f'<span style="{QUIET}">{escape(line)}</span>'})

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r" + " " * self._drawn + "\r")
            sys.stderr.flush()
            self._drawn = 0


def progress_line(progress: TrainingProgress, elapsed: float) -> str:
    """The progress of a run, in one line."""
    if not progress.steps:
        after = f" ({units.seconds(elapsed)})" if elapsed >= 1 else ""
        return f"tuning {progress.name}: {progress.phase} …{after}"
    done = progress.step / progress.steps
    parts = [f"tuning {progress.name}: step {progress.step} of {progress.steps}, {100 * done:.0f} %"]
    losses = [point.loss for point in progress.curve if point.loss is not None]
    held = [point.heldout for point in progress.curve if point.heldout is not None]
    if losses:
        parts.append(f"loss {losses[-1]:.3f}")
    if held:
        parts.append(f"held-out {held[-1]:.3f}")
    parts.append(units.seconds(elapsed))
    return ", ".join(parts)


def curve_svg(curve: Sequence[Point], steps: int) -> str:
    """The losses by step as an SVG: the training loss thin, the held-out loss with dots; "" without losses."""
    losses = [(point.step, point.loss) for point in curve if point.loss is not None]
    held = [(point.step, point.heldout) for point in curve if point.heldout is not None]
    if len(losses) < 2:
        return ""
    window = max(1, round(_SMOOTH * len(losses)))
    smooth = []
    for end in range(len(losses)):
        part = [loss for _, loss in losses[max(0, end + 1 - window) : end + 1]]
        smooth.append((losses[end][0], sum(part) / len(part)))
    top = max(value for _, value in smooth + held) or 1.0
    last = max(steps, losses[-1][0], 1)

    def at(step: int, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 8) * step / last
        return f"{x:.1f},{8 + (_HEIGHT - _BOTTOM - 8) * (1 - min(value / top, 1)):.1f}"

    def line(points: Sequence[tuple[int, float]], style: str) -> str:
        return f'<polyline fill="none" stroke="currentColor" {style} points="{" ".join(at(*p) for p in points)}"/>'

    dots = "".join(
        f'<circle r="3" cx="{x}" cy="{y}" fill="#e8590c"/>' for x, y in (at(*point).split(",") for point in held)
    )
    base = _HEIGHT - _BOTTOM
    text = 'fill="currentColor" font-size="11" font-family="sans-serif"'
    lowest = f"; held-out, lowest {min(value for _, value in held):.3f}" if held else ""
    return (
        f'<svg role="img" aria-label="loss by step" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" style="display:block;max-width:100%">'
        f'<path d="M{_LEFT} 8V{base}H{_WIDTH - 8}" fill="none" stroke="currentColor" opacity=".4"/>'
        f'<text x="{_LEFT - 6}" y="14" text-anchor="end" {text}>{units.three(top)}</text>'
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end" {text}>0</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 4}" text-anchor="end" {text}>step {last}</text>'
        f'<text x="{_WIDTH - 8}" y="20" text-anchor="end" {text} opacity=".8">loss (thin){lowest} (dots)</text>'
        + line(smooth, 'stroke-width="1" opacity=".7"')
        + (line(held, 'stroke-width="1.5" style="color:#e8590c"') if len(held) > 1 else "")
        + dots
        + "</svg>"
    )
