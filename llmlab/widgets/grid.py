"""The grid: an experiment's answers, prompts by variants, with whole answers, and ratings by thumbs or blind pairs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.errors import BadInputError
from llmlab.experiments.design import AXES
from llmlab.render import units
from llmlab.render.safe import escape, markdown, plain
from llmlab.render.table import Table
from llmlab.statistics import Vote
from llmlab.widgets import assets, standings, static_forms
from llmlab.widgets.base import BenchWidget

if TYPE_CHECKING:
    from llmlab.experiments.experiment import Experiment

# What a cell of the grid shows of an answer; the whole of it is sent when it is opened.
_SHORT = 240
# Rows of the static form.
STATIC_ROWS = 12


class Grid(BenchWidget):
    """An experiment's answers. Created by `Experiment.show`.

    Traits: `questions` (prompt and expected answer), `variants` (their names), `cells` (the rows: question, variant,
        start of the text, scores, thumb), `opened` (a whole answer), `pair` (two answers to compare blindly),
        `standings` (Elo ratings from the pairs), `tally`.

    Example:
        >>> exp = llmlab.experiment("widget", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"]).run()
        >>> grid = llmlab.widgets.Grid(exp)
        >>> grid.rate(0, 1)
        >>> exp.ratings["thumb"].tolist()[-1]
        1
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {
        "open": "_do_open",
        "shut": "_do_shut",
        "rate": "_do_rate",
        "pairs": "_do_pairs",
        "verdict": "_do_verdict",
    }
    _esm = assets.esm("grid")
    _css = assets.css("grid")

    title = t.Unicode().tag(sync=True)
    questions = t.List(t.Dict()).tag(sync=True)
    variants = t.List(t.Unicode()).tag(sync=True)
    scores = t.List(t.Unicode()).tag(sync=True)
    cells = t.List(t.Dict()).tag(sync=True)
    opened = t.Dict().tag(sync=True)
    pair = t.Dict().tag(sync=True)
    standings = t.List(t.Dict()).tag(sync=True)
    tally = t.Unicode().tag(sync=True)

    def __init__(self, experiment: Experiment) -> None:
        """Create the grid of an experiment that was run.

        Args:
            experiment: the experiment.

        Raises:
            BadInputError: it has no results yet.
        """
        self._experiment = experiment
        rows = experiment.rows
        varied = [name for name in AXES[1:] if len({row[name] for row in rows}) > 1] or ["model"]
        names = [" · ".join(str(row[name]) for name in varied if row[name] != "") for row in rows]
        self._variants = list(dict.fromkeys(names))
        self._random = random.SystemRandom()
        self._waiting: list[tuple[int, int]] = []
        self._shown_pair: tuple[int, int] | None = None
        super().__init__(None)
        thumbs = self._thumbs()
        with self.hold_sync():
            self.title = experiment.line
            self.questions = [
                {"text": one.text, "reference": one.reference or ""} for one in experiment.design.questions()
            ]
            self.variants = self._variants
            self.scores = [one.name for one in experiment.scorers]
            self.cells = [
                {
                    "row": place,
                    "question": row["question"],
                    "variant": self._variants.index(name),
                    "text": _short(row["text"]),
                    "error": row["error"],
                    "scores": {one: _value(row[one]) for one in self.scores},
                    "thumb": thumbs.get(row["key"], 0),
                }
                for place, (row, name) in enumerate(zip(rows, names, strict=True))
            ]
            self._show_tally()

    def _update_lab(self) -> None:
        """The grid shows nothing of the lab."""

    def rate(self, row: int, thumb: int) -> None:
        """Rate an answer.

        Args:
            row: the row of the frame.
            thumb: 1 is up, -1 is down.

        Raises:
            BadInputError: there is no such row, or the thumb is neither.

        Example:
            >>> exp = llmlab.experiment("thumbs", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"]).run()
            >>> exp.show().rate(0, -1)
        """
        with self._guard:
            self._experiment.rate({"row": row, "thumb": thumb})
            with self.hold_sync():
                self.cells = [{**one, "thumb": thumb} if one["row"] == row else one for one in self.cells]
                if self.opened.get("row") == row:
                    self.opened = {**self.opened, "thumb": thumb}
                self._show_tally()
            self._changed()

    def pairs(self) -> None:
        """Start to compare answers in pairs, blindly: the variants of a prompt in random order.

        Raises:
            BadInputError: no prompt has two answers.

        Example:
            >>> exp = llmlab.experiment("blind", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         params=[{"max_tokens": 4}, {"max_tokens": 8}]).run()
            >>> grid = exp.show()
            >>> grid.pairs()
            >>> sorted(grid.pair)
            ['a', 'b', 'left', 'prompt']
        """
        with self._guard:
            by_question: dict[int, list[int]] = {}
            for one in self.cells:
                if not one["error"]:
                    by_question.setdefault(one["question"], []).append(one["row"])
            found = [pair for rows in by_question.values() for pair in itertools.combinations(rows, 2)]
            texts = [row["text"] for row in self._experiment.rows]
            found = [(a, b) for a, b in found if texts[a] != texts[b]]
            if not found:
                raise BadInputError("There are no two different answers to one prompt.", "Declare several variants.")
            self._random.shuffle(found)
            self._waiting = [pair if self._random.random() < 0.5 else pair[::-1] for pair in found]
            self._next_pair()

    def verdict(self, winner: str) -> None:
        """Say which answer of the pair is better.

        Args:
            winner: "a", "b", "tie", or "skip".

        Raises:
            BadInputError: there is no pair, or no such verdict.

        Example:
            >>> exp = llmlab.experiment("sides", prompts=["Is 3 odd?"], models=["nano"], engines=["llamacpp"],
            ...                         params=[{"max_tokens": 4}, {"max_tokens": 8}]).run()
            >>> grid = exp.show()
            >>> grid.pairs()
            >>> grid.verdict("tie")
            >>> exp.ratings["winner"].tolist()[-1]
            'tie'
        """
        with self._guard:
            if self._shown_pair is None:
                raise BadInputError("There is no pair to compare.", "Start with: Compare pairs")
            if winner not in ("a", "b", "tie", "skip"):
                raise BadInputError(f"A verdict is a, b, tie or skip, not {winner!r}.")
            a, b = self._shown_pair
            if winner != "skip":
                self._experiment.rate({"a": a, "b": b, "winner": winner, "blind": True})
            self._show_tally()
            self._next_pair()
            self._changed()

    # -- messages from the page ------------------------------------------------------------------

    def _do_open(self, row: int = 0) -> None:
        if not 0 <= row < len(self.cells):
            raise BadInputError(f"There is no row {row}.")
        one, result, cell = self._experiment.rows[row], self._experiment.results[row], self.cells[row]
        body = result.body or {}
        self.opened = {
            "row": row,
            "prompt": one["prompt"],
            "reference": one["reference"] or "",
            "variant": self._variants[cell["variant"]],
            "text": one["text"],
            "error": one["error"],
            "pieces": list(body.get("pieces", [])),
            "line": _line(one),
            "scores": cell["scores"],
            "thumb": cell["thumb"],
            "differs": one["prompt_differs"],
        }

    def _do_shut(self) -> None:
        with self.hold_sync():
            self.opened, self.pair = {}, {}
        self._shown_pair = None

    def _do_rate(self, row: int = 0, thumb: int = 0) -> None:
        self.rate(row, thumb)

    def _do_pairs(self) -> None:
        self.pairs()

    def _do_verdict(self, winner: str = "") -> None:
        self.verdict(winner)

    # -- internals -------------------------------------------------------------------------------

    def _next_pair(self) -> None:
        self._shown_pair = self._waiting.pop() if self._waiting else None
        if self._shown_pair is None:
            self.pair = {}
            return
        rows = self._experiment.rows
        a, b = self._shown_pair
        # Neither rows nor names: the page doesn't know which is which.
        self.pair = {
            "prompt": rows[a]["prompt"],
            "a": rows[a]["text"],
            "b": rows[b]["text"],
            "left": len(self._waiting),
        }

    def _thumbs(self) -> dict[str, int]:
        ratings = self._experiment.ratings
        alone = ratings[ratings["thumb"].notna()]
        return {keys[0]: int(thumb) for keys, thumb in zip(alone["keys"], alone["thumb"], strict=True)}

    def _show_tally(self) -> None:
        """Show the wins of each variant in pairs, their ratings, and the thumbs."""
        votes = self._votes()
        self.standings = standings.rows(votes)
        self.tally = self._counts(votes)

    def _counts(self, votes: list[Vote]) -> str:
        thumbs = self._thumbs()
        parts = []
        if thumbs:
            up = sum(one > 0 for one in thumbs.values())
            parts.append(f"{up} up, {len(thumbs) - up} down")
        wins = dict.fromkeys(self._variants, 0)
        for one in votes:
            if one.winner is not None:
                wins[one.entrants[one.winner]] += 1
        if votes:
            parts.append("pairs won: " + ", ".join(f"{name} {count}" for name, count in wins.items() if count))
        return "; ".join(parts)

    def _votes(self) -> list[Vote]:
        """The verdicts on pairs, between variants."""
        ratings = self._experiment.ratings
        place = {
            row["key"]: self._variants[cell["variant"]] for row, cell in zip(self._rows(), self.cells, strict=True)
        }
        pairs = ratings[ratings["winner"].notna()]
        return [
            Vote(tuple(place[key] for key in keys), {"a": 0, "b": 1}.get(winner))
            for keys, winner in zip(pairs["keys"], pairs["winner"], strict=True)
            if all(key in place for key in keys)
        ]

    def _rows(self) -> tuple[Mapping[str, Any], ...]:
        return self._experiment.rows if self.cells else ()

    # -- static form -----------------------------------------------------------------------------

    def _table(self) -> Table:
        by_place = {(one["question"], one["variant"]): one for one in self.cells}
        body = []
        for number, question in enumerate(self.questions[:STATIC_ROWS]):
            found = [by_place.get((number, variant)) for variant in range(len(self.variants))]
            body.append([question["text"], *(_cell_text(one) for one in found)])
        more = len(self.questions) - STATIC_ROWS
        note = f"{units.count(more, 'more prompt')}; exp.export('report.html') has all of them." if more > 0 else ""
        return Table(("prompt", *self.variants), body, note=note)

    def markdown(self) -> str:
        """The first prompts with every variant's answer, one below the other."""
        parts = [f"**{markdown(self.title)}**"]
        by_question: dict[int, list[Any]] = {}
        for one in self.cells:
            by_question.setdefault(one["question"], []).append(one)
        for number, question in enumerate(self.questions[:STATIC_ROWS]):
            parts.append(f"**{markdown(question['text'])}**")
            parts += [
                f"- {markdown(self.variants[one['variant']])}: {markdown(_cell_text(one))}"
                for one in by_question.get(number, ())
            ]
        return "\n\n".join([*parts, f"<small>{escape(self.tally)}</small>"])

    def html(self) -> str:
        """The first prompts by variants, escaped."""
        return static_forms.frame(f"{self.title} {self.tally}".strip(), self._table().html())

    def text(self) -> str:
        """The first prompts by variants, as aligned text."""
        return plain(f"{self.title}\n{self._table().text()}")

    def __repr__(self) -> str:
        prompts, variants = units.count(len(self.questions), "prompt"), units.count(len(self.variants), "variant")
        return f"<Grid of {self._experiment.name}: {prompts}, {variants}>"


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _value(value: Any) -> Any:
    """A score as JSON has it."""
    return round(value, 4) if isinstance(value, float) else value


def _line(row: Mapping[str, Any]) -> str:
    """An answer's measurements in one line."""
    if row["error"]:
        return ""
    parts = [
        units.count(row["tokens"], "token"),
        units.speed(row["tokens_per_s"]),
        units.seconds(row["seconds"]),
        row["finish_reason"],
    ]
    return " · ".join(part for part in parts if part)


def _cell_text(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    if cell["error"]:
        return f"failed: {cell['error']}"
    scores = ", ".join(f"{name} {_shown(value)}" for name, value in cell["scores"].items() if value is not None)
    return f"{cell['text']}\n[{scores}]" if scores else str(cell["text"])


def _shown(value: Any) -> str:
    return (
        ("yes" if value else "no")
        if isinstance(value, bool)
        else f"{value:.3g}"
        if isinstance(value, float)
        else str(value)
    )
