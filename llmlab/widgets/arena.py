"""The arena: one prompt, two or more columns, and a vote."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from llmlab import _imports
from llmlab.errors import BadInputError, Interrupted, LlmLabError
from llmlab.measure.prompts import SamePrompt, of_streams
from llmlab.options import PenaltyOptions, known_keywords
from llmlab.types import Completion, SamplingParams
from llmlab.widgets import arena_columns, assets, export, standings, static_forms
from llmlab.widgets.arena_static import ArenaState
from llmlab.widgets.base import described
from llmlab.widgets.pump import Answering

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.experiments.experiment import Experiment
    from llmlab.session import Lab

EMPTY: dict[str, Any] = {"text": "", "thought": "", "facts": {}, "error": None, "running": False}


class Arena(ArenaState):
    """Columns that answer the same prompt with the same seed. Created by `llmlab.arena()`.

    Traits: `columns` (model, adapter, system, sampling), `rounds` (the earlier prompts of this conversation, with their
    answers), `prompt`, `answers`, `order` (the position of each column), `blind`, `revealed`, `ballots` (the votes),
    `standings` (Elo ratings), `difference` (of the prompts that the columns read), `system`, `seed` (-1: a new one for
    each prompt).

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
        "experiment": "_do_experiment",
        "restart": "_do_restart",
        "resync": "_do_resync",
    }
    _esm = assets.esm("arena")
    _css = assets.css("arena")

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
        self._asked: list[str] = []
        super().__init__(lab, blind=blind, revealed=not blind, system=system, seed=-1 if seed is None else seed)
        if models and columns:
            raise BadInputError("Name models or give columns, not both.")
        wanted = [dict(one) for one in columns] or [{"model": self.lab.get(name).name} for name in models]
        self._set_columns([arena_columns.column(one, sampling) for one in wanted or self._default()])

    def _default(self) -> list[dict[str, Any]]:
        names = list(self.lab.models)
        if len(names) >= 2:
            return [{"model": name} for name in names[:4]]
        name = names[0] if names else ""
        return [{"model": name, "temperature": 0.0}, {"model": name, "temperature": 0.8}]

    def _set_columns(self, columns: list[dict[str, Any]]) -> None:
        if not 2 <= len(columns) <= len(arena_columns.LETTERS):
            raise BadInputError(f"An arena has 2 to {len(arena_columns.LETTERS)} columns, not {len(columns)}.")
        for one in columns:
            SamplingParams.of({key: value for key, value in one["sampling"].items() if key != "think"})
        with self._guard, self.hold_sync():
            self.columns = columns
            self.answers = [dict(EMPTY) for _ in columns]
            self.order = list(range(len(columns)))
            self.prompt, self.verdict, self.rounds = "", "", []

    # -- prompting --------------------------------------------------------------------------------

    def send(self, prompt: str, *, follow_up: bool = False) -> list[Completion]:
        """Send a prompt to all columns, and wait.

        Args:
            prompt: the prompt.
            follow_up: continue the conversation: each column sees the earlier prompts and its own answers.

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
        answerings = self.submit(prompt, follow_up=follow_up)
        try:
            for answering in answerings:
                answering.wait()  # a failing column doesn't stop the others
        except KeyboardInterrupt:
            for answering in answerings:
                answering.cancel()
            raise Interrupted from None
        return [answering.result() for answering in answerings]

    def submit(self, prompt: str, *, follow_up: bool = False) -> list[Answering]:
        """Send a prompt to all columns, and return immediately.

        Args:
            prompt: the prompt.
            follow_up: as in `send`.

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
            if follow_up and not self.prompt:
                raise BadInputError("There is no conversation to follow up on.", "Send a first prompt.")
            rounds = [*self.rounds, {"prompt": self.prompt, "answers": self.answers}] if follow_up else []
            seed = self.seed if self.seed >= 0 else secrets.randbelow(2**31)
            streams = []
            for place, one in enumerate(self.columns):  # all are checked before the first one starts
                model = self._find(one["model"])
                messages = arena_columns.conversation(rounds, place, prompt)
                system = (one["system"] or self.system).strip() or None
                streams.append(model.stream(messages, system=system, **arena_columns.options(one, model, seed)))
            self._used_seed = seed
            self._gate = of_streams(streams)
            self._completions.clear()
            order, revealed = self.order, self.revealed
            if not follow_up:  # a conversation's columns keep their places
                self._asked += [prompt] if prompt not in self._asked else []
                order, revealed = list(range(len(streams))), not self.blind
                if self.blind:
                    random.SystemRandom().shuffle(order)
            with self.hold_sync():
                self.rounds, self.prompt, self.order = rounds, prompt, order
                self.revealed, self.verdict = revealed, ""
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
                "blind": not self.revealed,
                "turn": len(self.rounds) + 1,
                "seed": self._used_seed,
                "columns": labels,
                "answers": [answer["text"] for answer in self.answers],
                "same_prompt": [found.as_dict() for found in self._gate],
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self.lab.runlog.vote(ballot)
            with self.hold_sync():
                self.ballots = [*self.ballots, ballot]
                self.standings = standings.rows(map(standings.vote_of, self.ballots))
                self.verdict = str(choice)
                self.revealed = True
            self._changed()
        self._refresh_static()

    def elo(self, *, earlier: bool = False) -> pd.DataFrame:
        """Elo ratings from the votes, with 95 % intervals from 10 votes on; see `llmlab.statistics.elo`.

        Args:
            earlier: count the votes of all arenas in the run log, including earlier kernels. Columns with the same name
                (see `label`) are the same there.

        Returns:
            One row per column, best first: name, rating, low, high, votes.

        Example:
            >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"temperature": 1.0}], max_tokens=8)
            >>> answers = arena.send("Hello!")
            >>> arena.vote(0)
            >>> arena.elo()[["rating", "votes"]].values.tolist()
            [[1131, 1], [869, 1]]
        """
        _imports.load("pandas")
        import pandas as pd

        counted = self.lab.runlog.votes() if earlier and self.lab.runlog.enabled else self.ballots
        rows = standings.rows(map(standings.vote_of, counted))
        table = pd.DataFrame(rows, columns=["name", "rating", "low", "high", "votes"])
        return table.astype({"low": float, "high": float})

    def experiment(self, name: str = "arena", *, prompts: Sequence[str] | None = None) -> Experiment:
        """An experiment with the columns as its variants.

        Args:
            name: its name.
            prompts: its prompts; None: those that were sent here, without the follow-ups, which differ by column.

        Returns:
            The experiment, not run yet.

        Raises:
            BadInputError: there is no prompt yet, or a column sets `think`.

        Example:
            >>> arena = llmlab.arena(columns=[{"temperature": 0}, {"system": "Be brief."}], seed=1, max_tokens=8)
            >>> answers = arena.send("Hello!")
            >>> arena.experiment().run().frame["system"].tolist()
            ['none', 'Be brief.']
        """
        asked = self._asked if prompts is None else prompts
        return arena_columns.experiment(name, self.columns, asked, system=self.system, seed=self.seed, lab=self.lab)

    # -- messages from the page ------------------------------------------------------------------------

    def _do_send(self, text: str = "", ticket: str = "", follow_up: bool = False) -> None:
        self.submit(text, follow_up=follow_up)
        self._tell(do="accepted", ticket=ticket)

    def _do_columns(self, columns: Sequence[Mapping[str, Any]] = ()) -> None:
        if self.running:
            raise LlmLabError("Answers are still being generated.", "Stop them first.")
        self._set_columns([arena_columns.column(one, {}) for one in columns])

    def _do_restart(self) -> None:
        """An empty page, with the same columns."""
        self._do_columns(self.columns)
        self.revealed = not self.blind

    def _do_experiment(self) -> None:
        found = self.experiment()
        name = export.free_name("exp")
        export.keep(name, found)
        self._tell(do="experiment", line=f"{found.line}. It is in the variable {name}.", code=f"{name}.run().show()")

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


def _difference(gate: Sequence[SamePrompt]) -> str:
    """What to show if the columns don't read the same prompt; "" if they do. Settings are the columns' own."""
    differing = [found for found in gate if found.same is False]
    return "\n".join(f"{found.line}\n{replace(found, settings={}).diff}" for found in differing)
