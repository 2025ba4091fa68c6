"""One line a tool call: plain, Markdown and HTML. What a model wrote and a tool returned is escaped in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab.render import units
from llmlab.render.safe import code_span, escape, plain
from llmlab.render.table import MONO, QUIET

if TYPE_CHECKING:
    from llmlab.types import ToolCall, ToolStep

# A result may be thousands of characters; all of it is in completion.steps.
SHOWN_CHARACTERS = 300


def step_line(step: ToolStep) -> str:
    """A call and what came of it, as plain text on one line."""
    call, mark, said, took = _parts(step)
    return " ".join(part for part in (f"→ {call}", mark, said, took) if part)


def calls_bundle(steps: Sequence[ToolStep], unrun: Sequence[ToolCall] = ()) -> dict[str, str]:
    """Calls for a front end.

    Args:
        steps: calls that were dealt with, or are.
        unrun: calls that were left to the caller.

    Returns:
        `text/plain`, `text/markdown` and `text/html`; empty texts when there is nothing to show.
    """
    rows = [_parts(step) for step in steps] + [(_one_line(str(call)), "was not run", "", "") for call in unrun]
    style = f"{MONO};white-space:pre-wrap"
    return {
        "text/plain": "\n".join(" ".join(part for part in (f"→ {row[0]}", *row[1:]) if part) for row in rows),
        "text/markdown": "\n".join(
            f"- {code_span(call)} {escape(mark)} {code_span(said) if said else ''} <small>{escape(took)}</small>"
            for call, mark, said, took in rows
        ),
        "text/html": "".join(
            f'<div class="llmlab"><span style="{style}">{escape(call)}</span> '
            f'<span style="{QUIET}">{escape(mark)}</span> '
            f'<span style="{style}">{escape(said)}</span> <span style="{QUIET}">{escape(took)}</span></div>'
            for call, mark, said, took in rows
        ),
    }


def _parts(step: ToolStep) -> tuple[str, str, str, str]:
    """(call, what came of it in a word, result or error, time)."""
    call = _one_line(str(step.call))
    if step.running:
        return call, "runs …", "", ""
    took = f"({units.seconds(step.seconds)})" if step.seconds else ""
    if step.error:
        return call, "failed:", _one_line(step.error), took
    return call, "=", _one_line(step.result or "(an empty text)"), took


def _one_line(text: str) -> str:
    shown = plain(text).replace("\n", " ⏎ ")
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
