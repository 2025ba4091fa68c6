"""The arena: one prompt, two or more columns, and a vote."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import traitlets as t

from llmlab import _imports
from llmlab.errors import BadInputError, Interrupted, LlmLabError, UnknownNameError
from llmlab.inference.thoughts import think_of, think_text
from llmlab.measure.prompts import SamePrompt, of_streams
from llmlab.options import PenaltyOptions, known_keywords
from llmlab.render.safe import escape
from llmlab.types import Completion, SamplingParams
from llmlab.widgets import assets, static_forms
from llmlab.widgets.base import BenchWidget, described
from llmlab.widgets.pump import Answering

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.session import Lab

LETTERS = "ABCDEFGH"

EMPTY: dict[str, Any] = {"text": "", "thought": "", "facts": {}, "error": None, "running": False}


class Arena(BenchWidget):
    """Columns that answer the same prompt with the same seed. Created by `llmlab.arena()`.

    Traits: `columns` (model, adapter, sampling), `prompt`, `answers`, `order` (the position of each column), `blind`,
    `revealed`, `ballots` (the votes), `difference` (of the prompts that the columns read), `system`, `seed` (-1: a new
    one for each prompt).

    Example:
        >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], seed=7, max_tokens=8)
        >>> [len(done.token_ids) <= 8 for done in arena.send("Hello!")]
        [True, True]
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {
        "send": "_do_send",
        "stop": "stop",
        "vote": "vote",
        "columns": "_do_columns",
        "blind": "_do_blind",
        "resync": "_do_resync",
    }
    _esm = assets.esm("arena")
    _css = assets.css("arena")

    columns = t.List(t.Dict()).tag(sync=True)
    prompt = t.Unicode().tag(sync=True)
    answers = t.List(t.Dict()).tag(sync=True)
    order = t.List(t.Int()).tag(sync=True)
    blind = t.Bool(default_value=False).tag(sync=True)
    revealed = t.Bool(default_value=True).tag(sync=True)
    verdict = t.Unicode().tag(sync=True)
    ballots = t.List(t.Dict()).tag(sync=True)
    difference = t.Unicode().tag(sync=True)
    system = t.Unicode().tag(sync=True)
    seed = t.Int(-1).tag(sync=True)

    @known_keywords
    def __init__(
        self,
        *models: str,
        lab: Lab | None = None,
        columns: Sequence[Mapping[str, Any]] = (),
        blind: bool = False,
        seed: int | None = None,
        system: str = "",
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
        think: bool | str | int | None = None,
        **penalties: Unpack[PenaltyOptions],
    ) -> None:
        """Create an arena. The arguments are those of `llmlab.arena`."""
        sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
        sampling |= {"max_tokens": max_tokens, "stop": stop, "logprobs": logprobs, "think": think, **penalties}
        self._answerings: dict[int, Answering] = {}
        self._completions: dict[int, Completion] = {}
        self._used_seed = 0
        self._gate: list[SamePrompt] = []
        super().__init__(lab, blind=blind, revealed=not blind, system=system, seed=-1 if seed is None else seed)
        if models and columns:
            raise BadInputError("Name models or give columns, not both.")
        wanted = [dict(one) for one in columns] or [{"model": self.lab.get(name).name} for name in models]
        self._set_columns([_column(one, sampling) for one in wanted or self._default()])

    def _default(self) -> list[dict[str, Any]]:
        names = list(self.lab.models)
        if len(names) >= 2:
            return [{"model": name} for name in names[:4]]
        name = names[0] if names else ""
        return [{"model": name, "temperature": 0.0}, {"model": name, "temperature": 0.8}]

    def _set_columns(self, columns: list[dict[str, Any]]) -> None:
        if not 2 <= len(columns) <= len(LETTERS):
            raise BadInputError(f"An arena has 2 to {len(LETTERS)} columns, not {len(columns)}.")
        for one in columns:
            SamplingParams.of({key: value for key, value in one["sampling"].items() if key != "think"})
        with self._guard, self.hold_sync():
            self.columns = columns
            self.answers = [dict(EMPTY) for _ in columns]
            self.order = list(range(len(columns)))
            self.prompt, self.verdict = "", ""

    # -- prompting --------------------------------------------------------------------------------

    def send(self, prompt: str) -> list[Completion]:
        """Send a prompt to all columns, and wait.

        Args:
            prompt: the prompt.

        Returns:
            The completions, in the columns' order.

        Raises:
            LlmLabError: a column can't be used (nothing was started), or failed.

        Example:
            >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 0}], max_tokens=8)
            >>> first, second = arena.send("Hello!")
            >>> first.text == second.text
            True
        """
        answerings = self.submit(prompt)
        try:
            for answering in answerings:
                answering.wait()  # a failing column doesn't stop the others
        except KeyboardInterrupt:
            for answering in answerings:
                answering.cancel()
            raise Interrupted from None
        return [answering.result() for answering in answerings]

    def submit(self, prompt: str) -> list[Answering]:
        """Send a prompt to all columns, and return immediately.

        Args:
            prompt: the prompt.

        Returns:
            The answers in progress, in the columns' order: `.result()` waits for one.

        Raises:
            LlmLabError: a column can't be used; nothing was started.

        Example:
            >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], max_tokens=8)
            >>> answers = arena.submit("Hello!")
            >>> [answer.result().finish_reason for answer in answers]  # doctest: +VARIES
            ['length', 'length']
        """
        with self._guard:
            if self.running:
                raise LlmLabError("Answers are still being generated.", "Wait until they finish, or stop them.")
            if not prompt.strip():
                raise BadInputError("The prompt is empty.", "Enter a prompt.")
            seed = self.seed if self.seed >= 0 else secrets.randbelow(2**31)
            streams = []
            for one in self.columns:  # all are checked before the first one starts
                model = self._find(one["model"])
                options = {**one["sampling"], "seed": seed}
                if "think" in options:
                    options["think"] = think_of(options["think"])
                if one["adapter"] or model.adapter:
                    options["adapter"] = one["adapter"] or "none"
                streams.append(model.stream(prompt, system=self.system.strip() or None, **options))
            self._used_seed = seed
            self._gate = of_streams(streams)
            self._completions.clear()
            order = list(range(len(streams)))
            if self.blind:
                random.SystemRandom().shuffle(order)
            with self.hold_sync():
                self.prompt, self.order, self.revealed, self.verdict = prompt, order, not self.blind, ""
                self.answers = [{**EMPTY, "running": True} for _ in streams]
                self.difference = _difference(self._gate)
            self._answerings = {i: self._start(i, stream) for i, stream in enumerate(streams)}
            return list(self._answerings.values())

    @property
    def running(self) -> bool:
        """Whether any column is still generating."""
        return any(answer["running"] for answer in self.answers)

    def stop(self) -> None:
        """Stop all running answers; partial answers are kept.

        Example:
            >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], max_tokens=500)
            >>> answers = arena.submit("Tell me a story.")
            >>> arena.stop()
        """
        for answering in list(self._answerings.values()):
            if not answering.done:
                answering.cancel()

    @property
    def prompts(self) -> list[SamePrompt]:
        """Whether the first column and each of the others read the same prompt, for the last one that was sent."""
        return list(self._gate)

    @property
    def completions(self) -> list[Completion]:
        """The completions of the last prompt, in the columns' order."""
        return [self._completions[i] for i in sorted(self._completions)]

    # -- voting -----------------------------------------------------------------------------------

    def vote(self, choice: int | str) -> None:
        """Vote on the answers.

        Args:
            choice: the winning column (from 0, in the columns' order), "tie" or "none" (all are bad).

        Raises:
            BadInputError: there is nothing to vote on, the answers already have a vote, or there is no such column.

        Example:
            >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], max_tokens=8)
            >>> answers = arena.send("Hello!")
            >>> arena.vote("tie")
            >>> list(arena.votes["winner"])
            ['tie']
        """
        with self._guard:
            if not self.prompt or self.running:
                raise BadInputError("There is nothing to vote on yet.", "Send a prompt, and wait for the answers.")
            if self.verdict:
                raise BadInputError("You already voted on these answers.", "Send another prompt.")
            if choice not in ("tie", "none") and not (isinstance(choice, int) and 0 <= choice < len(self.columns)):
                raise BadInputError(
                    f"A vote is a column (0 to {len(self.columns) - 1}), 'tie' or 'none', not {choice!r}."
                )
            labels = [self.label(i) for i in range(len(self.columns))]
            ballot = {
                "prompt": self.prompt,
                "winner": labels[choice] if isinstance(choice, int) else choice,
                "column": choice if isinstance(choice, int) else None,
                "blind": self.blind,
                "seed": self._used_seed,
                "columns": labels,
                "answers": [answer["text"] for answer in self.answers],
                "same_prompt": [found.as_dict() for found in self._gate],
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            with self.hold_sync():
                self.ballots = [*self.ballots, ballot]
                self.verdict = str(choice)
                self.revealed = True
            self._changed()
        self._refresh_static()

    @property
    def votes(self) -> pd.DataFrame:
        """The votes, one per row, with prompt, winner, column, blind, seed, columns, answers, at, same_prompt."""
        _imports.load("pandas")
        import pandas as pd

        names = ["prompt", "winner", "column", "blind", "seed", "columns", "answers", "at", "same_prompt"]
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
        one = self.columns[column]
        try:
            model = self._find(one["model"])
            parts = [model.name, model.quant]
        except UnknownNameError:
            parts = [one["model"] or "(no model)"]
        parts += [f"adapter {one['adapter']}"] if one["adapter"] else []
        parts += [f"{key} {value}" for key, value in one["sampling"].items()]
        return " · ".join(parts)

    # -- messages from the page ------------------------------------------------------------------------

    def _do_send(self, text: str = "", ticket: str = "") -> None:
        self.submit(text)
        self._tell(do="accepted", ticket=ticket)

    def _do_columns(self, columns: Sequence[Mapping[str, Any]] = ()) -> None:
        if self.running:
            raise LlmLabError("Answers are still being generated.", "Stop them first.")
        self._set_columns([_column(one, {}) for one in columns])

    def _do_blind(self, on: bool = False) -> None:
        with self.hold_sync():
            self.blind = bool(on)
            if not self.prompt or self.verdict:
                self.revealed = not on

    def _do_resync(self) -> None:
        self._tell(do="hello", view="", live=self._live())

    def _live(self) -> dict[str, Any]:
        return {
            str(i): {"text": a.text, "thought": a.thought, "tokens": a.tokens}
            for i, a in self._answerings.items()
            if not a.done
        }

    def _start(self, column: int, stream: Any) -> Answering:
        def piece(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", column=column, at=start, text=new, tokens=tokens)

        def thought(start: int, new: str, tokens: int) -> None:
            self._tell(do="delta", column=column, at=start, thought=new, tokens=tokens)

        def ended(completion: Completion | None, error: BaseException | None) -> None:
            if self._closed:
                return
            with self._guard:
                answer = dict(EMPTY)
                if completion is not None:
                    self._completions[column] = completion
                    self.lab.runlog.add(completion, source="arena")
                    answer |= {"text": completion.text, "thought": completion.reasoning}
                    answer["facts"] = static_forms.facts_of(completion)
                if error is not None:
                    answer["error"] = described(error)
                self.answers = [answer if i == column else one for i, one in enumerate(self.answers)]
                self._changed()
            if not self.running:
                self._refresh_static()

        try:
            return Answering(stream, piece=piece, ended=ended, thought=thought)
        except BaseException as error:
            ended(None, error)
            raise

    def _cancel_all(self) -> None:
        self.stop()

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
        return "votes: " + ", ".join(f"{name} {count}" for name, count in wins.items())

    def markdown(self) -> str:
        """The prompt, the answers one below the other, the votes."""
        if not self.prompt:
            return f"*Arena with {len(self.columns)} columns; no prompt yet.*"
        turns = [{"role": "user", "text": self.prompt}]
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
        body = f"{static_forms.turns_html([{'role': 'user', 'text': self.prompt}])}"
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


def _difference(gate: Sequence[SamePrompt]) -> str:
    """What to show if the columns don't read the same prompt; "" if they do. Settings are the columns' own."""
    differing = [found for found in gate if found.same is False]
    return "\n".join(f"{found.line}\n{replace(found, settings={}).diff}" for found in differing)


def _column(given: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """A normalized column; sampling params may be given as its fields or under "sampling"."""
    own = {key: value for key, value in given.items() if key not in ("model", "adapter", "sampling")}
    chosen = {**sampling, **dict(given.get("sampling") or {}), **own}
    chosen = {key: value for key, value in chosen.items() if value not in (None, "", [])}
    if "think" in chosen:  # as text: a page has no other form of it
        chosen["think"] = think_text(chosen["think"])
    if "seed" in chosen:
        raise BadInputError("A column can't have its own seed.", "All columns share one: llmlab.arena(..., seed=7)")
    return {"model": str(given.get("model") or ""), "adapter": str(given.get("adapter") or ""), "sampling": chosen}
