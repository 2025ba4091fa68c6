"""The arena's state, and its static form: what a notebook shows without a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets as t

from llmlab import _imports
from llmlab.render.safe import escape
from llmlab.widgets import arena_columns, standings, static_forms
from llmlab.widgets.arena_columns import LETTERS
from llmlab.widgets.base import BenchWidget

if TYPE_CHECKING:
    import pandas as pd


class ArenaState(BenchWidget):
    """The state of an arena, without generation."""

    columns = t.List(t.Dict()).tag(sync=True)
    rounds = t.List(t.Dict()).tag(sync=True)
    prompt = t.Unicode().tag(sync=True)
    answers = t.List(t.Dict()).tag(sync=True)
    order = t.List(t.Int()).tag(sync=True)
    blind = t.Bool(default_value=False).tag(sync=True)
    revealed = t.Bool(default_value=True).tag(sync=True)
    verdict = t.Unicode().tag(sync=True)
    ballots = t.List(t.Dict()).tag(sync=True)
    standings = t.List(t.Dict()).tag(sync=True)
    difference = t.Unicode().tag(sync=True)
    system = t.Unicode().tag(sync=True)
    seed = t.Int(-1).tag(sync=True)

    @property
    def votes(self) -> pd.DataFrame:
        """The votes, one per row, with prompt, winner, column, blind, seed, columns, answers, at, same_prompt, turn."""
        _imports.load("pandas")
        import pandas as pd

        names = ["prompt", "winner", "column", "blind", "seed", "columns", "answers", "at", "same_prompt", "turn"]
        return pd.DataFrame(self.ballots, columns=names)

    def label(self, column: int) -> str:
        """A column's model, quant, adapter and sampling params.

        Args:
            column: the column, from 0.

        Returns:
            One line.

        Example:
            >>> llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}]).label(1)
            'nano · F16 · temperature 1.0'
        """
        return arena_columns.label(self.columns[column], self.lab)

    # -- static form ----------------------------------------------------------------------------------

    def _titled(self) -> list[tuple[str, dict[str, Any]]]:
        """Titles and answers in page order; the titles of a blind round don't name the models."""
        out = []
        for place, column in enumerate(self.order):
            who = self.label(column) if self.revealed else "hidden until the vote"
            out.append((f"{LETTERS[place]}: {who}", self.answers[column]))
        return out

    def _tally(self) -> str:
        if not self.ballots:
            return "no votes yet"
        wins = self.votes["winner"].value_counts()
        counts = "votes: " + ", ".join(f"{name} {count}" for name, count in wins.items())
        return f"{counts} · {standings.line(self.standings)}"

    def _earlier(self) -> list[dict[str, Any]]:
        """The earlier rounds as turns, with all answers of a round under one heading."""
        turns: list[dict[str, Any]] = []
        for one in self.rounds:
            answers = "\n\n".join(
                f"{LETTERS[at]}: {one['answers'][place]['text']}" for at, place in enumerate(self.order)
            )
            turns += [{"role": "user", "text": one["prompt"]}, {"role": "assistant", "text": answers}]
        return turns

    def markdown(self) -> str:
        """The prompt, the answers one below the other, the votes."""
        if not self.prompt:
            return f"*Arena with {len(self.columns)} columns; no prompt yet.*"
        turns = [*self._earlier(), {"role": "user", "text": self.prompt}]
        parts = [static_forms.turns_markdown(turns)]
        for title, answer in self._titled():
            parts.append(static_forms.titled_markdown(title, answer, secret=not self.revealed))
        if differing := self._differing():
            parts.append(differing)
        return "\n\n".join([*parts, f"<small>{escape(self._tally())}</small>"])

    def html(self) -> str:
        """The answers side by side, escaped."""
        if not self.prompt:
            return static_forms.frame(f"Arena with {len(self.columns)} columns; no prompt yet.", "")
        cells = "".join(static_forms.titled_html(title, a, secret=not self.revealed) for title, a in self._titled())
        body = static_forms.turns_html([*self._earlier(), {"role": "user", "text": self.prompt}])
        body += f'<div style="display:flex;gap:12px;flex-wrap:wrap">{cells}</div>'
        body += self._differing()
        return static_forms.frame(f"Arena · {self._tally()}", body)

    def _differing(self) -> str:
        """How the prompts differ, as HTML; "" if they don't, or before the vote."""
        if not self.difference or not self.revealed:
            return ""
        return f"<details><summary>The prompts differ</summary><pre>{escape(self.difference)}</pre></details>"

    def __repr__(self) -> str:
        return f"<Arena with {len(self.columns)} columns: {self._tally()}>"
