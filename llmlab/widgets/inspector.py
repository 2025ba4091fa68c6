"""The inspector: how sure the model was of each token, what it could have said, and what would have come then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.display.safe import escape, markdown, plain
from llmlab.errors import BadInputError, UnloadedError
from llmlab.types import Completion
from llmlab.widgets import assets, static
from llmlab.widgets.base import BenchWidget, problem_html
from llmlab.widgets.pump import Answering

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab

TOP = 5
UPDATE_EVERY_S = 0.12
# Static forms of long texts: the start says enough.
STATIC_TOKENS = 400

Row = list[Any]


class Inspector(BenchWidget):
    """A completion, token by token. Made by `completion.inspect()`.

    Traits: `versions` (the completion and what was continued from it: label, rows of [text, probability, top-k],
    where it leaves the first), `shown` (which version), `running`.
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {
        "continue": "_do_continue",
        "again": "_do_again",
        "stop": "stop",
        "show": "_do_show",
    }
    _esm = assets.esm("inspector")
    _css = assets.css("inspector")

    versions = t.List(t.Dict()).tag(sync=True)
    shown = t.Int(0).tag(sync=True)
    running = t.Bool(default_value=False).tag(sync=True)
    guided = t.Bool(default_value=False).tag(sync=True)

    def __init__(self, completion: Completion, *, lab: Lab | None = None, choice: int = 0) -> None:
        """Inspect a completion.

        Args:
            completion: what a model returned; with `logprobs=K` it has the K likeliest tokens at each step.
            lab: the bench that has the model (to continue from another token).
            choice: which of the n texts.
        """
        if not 0 <= choice < len(completion.choices):
            raise BadInputError(f"There is no choice {choice}: the completion has {len(completion.choices)}.")
        self._completion = completion
        self._answering: Answering | None = None
        super().__init__(lab)
        # Only a greedy choice proves that what was likelier was ruled out, and not just missed by the draw.
        self.guided = completion.guidance is not None and completion.params.temperature == 0
        one = completion.choices[choice]
        rows = (
            static.token_rows(one.logprobs) if one.logprobs is not None else self._plain_rows(one.token_ids, one.text)
        )
        self.versions = [_version("As it was said", rows, completion)]

    @property
    def completion(self) -> Completion:
        """What is inspected."""
        return self._completion

    def continue_from(self, token: int, alternative: int | str) -> Answering:
        """Go on as if another token had been said.

        Args:
            token: the place of the token, from 0, in the version shown.
            alternative: which of its likeliest tokens (0 is the likeliest), or any text.

        Returns:
            The answer under way: `.result()` is the completion of what came after the forced text.
        """
        rows: list[Row] = self.versions[self.shown]["rows"]
        if not 0 <= token < len(rows):
            raise BadInputError(f"There is no token {token}: the text has {len(rows)}.")
        top = rows[token][2]
        if isinstance(alternative, str):
            forced, probability = alternative, None
        elif 0 <= alternative < len(top):
            forced, probability = top[alternative]
        else:
            raise BadInputError(f"There is no alternative {alternative}: token {token} has {len(top)}.")
        if not forced or "\ufffd" in forced:
            raise BadInputError(
                "That token is no text of its own (the end of the turn, or a part of a character).", "Choose another."
            )
        prefix = [*rows[:token], [forced, probability, top]]
        return self._go(prefix, f"“{forced.strip() or forced}” at {token + 1}", token)

    def again(self) -> Answering:
        """Ask the same again (same seed), and keep the token probabilities."""
        return self._go([], "Asked again", 0)

    def stop(self) -> None:
        """End what is under way; what came stays."""
        if self._answering is not None:
            self._answering.cancel()

    # -- messages from the page ------------------------------------------------------------------

    def _do_continue(self, token: int = 0, alternative: int = 0) -> None:
        self.continue_from(token, alternative)

    def _do_again(self) -> None:
        self.again()

    def _do_show(self, version: int = 0) -> None:
        if not 0 <= version < len(self.versions):
            raise BadInputError(f"There is no version {version}.")
        self.shown = version

    # -- inside ------------------------------------------------------------------------------------

    def _loaded(self) -> Model:
        model = self.lab.models.get(self._completion.model)
        if model is None:
            raise UnloadedError(
                f"{self._completion.model}, which said this, isn't loaded.",
                f"Load it as {self._completion.model} to continue from here.",
            )
        return model

    def _go(self, prefix: list[Row], label: str, at: int) -> Answering:
        if self.running:
            raise BadInputError("A continuation is under way.", "Wait for its end, or stop it.")
        done, model = self._completion, self._loaded()
        asked = done.params.logprobs or TOP
        params = replace(done.params, n=1, logprobs=max(asked, 1))
        prompt = done.prompt
        bos = model.facts.special_tokens.get("bos_token", "")
        if model.facts.add_bos and bos and prompt.startswith(bos):
            prompt = prompt.removeprefix(bos)  # a raw prompt gets its own
        stream = model.stream(prompt + "".join(row[0] for row in prefix), raw=True, params=params,
                              **({"adapter": done.adapter} if done.adapter else {}))  # fmt: skip
        with self.hold_sync():
            self.versions = [*self.versions, _version(label, prefix, None, at=at)]
            self.shown = len(self.versions) - 1
            self.running = True
        number = self.shown

        last = [0.0]

        def piece(_start: int, _new: str, _tokens: int) -> None:
            # Each update carries all rows, so they come less often than a chat's pieces of text.
            if time.monotonic() - last[0] < UPDATE_EVERY_S:
                return
            last[0] = time.monotonic()
            self._set(number, [*prefix, *static.token_rows(stream.partial().logprobs or ())], None)

        def ended(completion: Completion | None, error: BaseException | None) -> None:
            if self._closed:
                return
            with self._guard, self.hold_sync():
                if completion is not None:
                    self._set(number, [*prefix, *static.token_rows(completion.logprobs or ())], completion)
                self.running = False
            if error is not None:
                self._report(error)
            self._changed()
            self._refresh_static()

        self._answering = Answering(stream, piece=piece, ended=ended)
        return self._answering

    def _set(self, number: int, rows: list[Row], completion: Completion | None) -> None:
        with self._guard:
            old = self.versions[number]
            new = _version(old["label"], rows, completion, at=old["at"])
            self.versions = [new if i == number else one for i, one in enumerate(self.versions)]

    def _plain_rows(self, ids: Sequence[int], text: str) -> list[Row]:
        """Tokens without probabilities, where the model is there to say how the text was cut."""
        model = self.lab.models.get(self._completion.model)
        if model is None:
            return [[text, None, []]]
        pieces = [model.detokenize([one]) for one in ids]
        return (
            [[piece, None, []] for piece in pieces] if "".join(pieces).strip() == text.strip() else [[text, None, []]]
        )

    def _cancel_all(self) -> None:
        self.stop()

    # -- the form without a front end -----------------------------------------------------------------

    def markdown(self) -> str:
        """The completion, and its least certain tokens."""
        rows = self.versions[self.shown]["rows"]
        said = markdown("".join(row[0] for row in rows))
        return f"{said}\n\n<small>{escape(self._doubts(rows))}</small>"

    def text(self) -> str:
        """The completion, and its least certain tokens."""
        rows = self.versions[self.shown]["rows"]
        return plain("".join(row[0] for row in rows)) + f"\n[{plain(self._doubts(rows))}]"

    def html(self) -> str:
        """The tokens, shaded: the darker the background, the less sure the model was."""
        rows = self.versions[self.shown]["rows"]
        spans = "".join(_span(row) for row in rows[:STATIC_TOKENS])
        rest = f" … {len(rows) - STATIC_TOKENS:,} more tokens" if len(rows) > STATIC_TOKENS else ""
        body = f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{spans}{rest}</div>'
        return static.frame(f"{self._completion.model}: {self._doubts(rows)}", body) + problem_html(self.problem)

    def _doubts(self, rows: Sequence[Row]) -> str:
        known = [row for row in rows if row[1] is not None]
        if not known:
            return "no token probabilities (ask with logprobs=5)"
        least = sorted(known, key=lambda row: row[1])[:3]
        mean = sum(row[1] for row in known) / len(known)
        doubts = ", ".join(f"{row[0]!r} {static.percent(row[1])}" for row in least)
        return f"{len(rows)} tokens, mean probability {static.percent(mean)}; least sure: {doubts}"

    def __repr__(self) -> str:
        return f"<Inspector of {len(self.versions[0]['rows'])} tokens of {self._completion.model}>"


def _version(label: str, rows: list[Row], completion: Completion | None, at: int = 0) -> dict[str, Any]:
    line = static.quiet_line(completion) if completion is not None else ""
    return {"label": label, "rows": rows, "at": at, "line": line}


def _span(row: Row) -> str:
    if row[1] is None:
        return escape(row[0])
    doubt = f"background:rgba(200,120,0,{(1 - row[1]) * 0.6:.2f})"
    return f'<span style="{doubt}" title="{static.percent(row[1])}">{escape(row[0])}</span>'
