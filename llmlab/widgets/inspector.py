"""The inspector: how sure the model was of each token, what it could have said, and what would have come then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.errors import BadInputError, UnloadedError, UnsupportedError
from llmlab.render.safe import escape, markdown, plain
from llmlab.types import Completion, Guidance
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
    where it leaves the first), `shown` (which version), `running`, `mask` (of a guided completion: for each token
    what the constraint removed, and what the model would have said).
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
    guided = t.Dict(help="what the constraint is called, and what it did in one line").tag(sync=True)
    mask: t.List[Any] = t.List(help="a dict or None for each token of the first version").tag(sync=True)

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
        one = completion.choices[choice]
        guidance = completion.guidance if choice == 0 else None  # it tells of the first choice
        if one.logprobs is not None:
            rows = static.token_rows(one.logprobs)
        else:
            rows = self._plain_rows(one.token_ids, one.text)
        if guidance is not None:
            self.mask = masks(one.token_ids, guidance, greedy=completion.params.temperature == 0)
            self.guided = {"name": guidance.name, "says": guided_line(guidance)}
            if one.logprobs is None and len(rows) == len(self.mask):  # what was measured for the mask is at hand
                rows = [[r[0], m["probability"] if m else None, []] for r, m in zip(rows, self.mask, strict=True)]
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
        if any(message.images for message in done.messages):
            raise UnsupportedError(
                "This answers an image, and a text can't be gone on with beside one.", "Ask again with other words."
            )
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
        notes = [self._doubts(rows), *([self.guided["says"]] if self.guided and not self.shown else [])]
        return f"{said}\n\n<small>{escape('. '.join(notes))}</small>"

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
        body += f"<div>{escape(self.guided['says'])}</div>" if self.guided and not self.shown else ""
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


def masks(ids: Sequence[int], guidance: Guidance, *, greedy: bool) -> list[dict[str, Any] | None]:
    """For each token what the constraint removed there; None where it wasn't measured.

    Args:
        ids: the tokens.
        guidance: what the constraint did.
        greedy: the likeliest token that was left was taken: all that was likelier had been ruled out.
    """
    out: list[dict[str, Any] | None] = [None] * len(ids)
    for place, (token, step) in enumerate(zip(ids, guidance.steps, strict=False)):
        if step.token_id == token:
            changed = step.wanted_id != token and step.removed >= step.wanted_probability
            out[place] = {
                "probability": round(step.probability, 6),
                "removed": round(step.removed, 6),
                "wanted": step.wanted,
                "wanted_probability": round(step.wanted_probability, 6),
                "changed": changed,
                "forced": step.forced,
                "greedy": greedy,
            }
    return out


def guided_line(guidance: Guidance) -> str:
    """What the constraint did, in one line."""
    if guidance.removed is None:
        return f"{guidance.name} ({guidance.kind}): {guidance.note or 'not measured'}"
    share, count = static.percent(guidance.removed), len(guidance.steps)
    return (
        f"{guidance.name} ({guidance.kind}) removed {share} of the probability at an average token, and changed the "
        f"model's first choice at {guidance.changed} of {count} tokens"
    )


def _span(row: Row) -> str:
    if row[1] is None:
        return escape(row[0])
    doubt = f"background:rgba(200,120,0,{(1 - row[1]) * 0.6:.2f})"
    return f'<span style="{doubt}" title="{static.percent(row[1])}">{escape(row[0])}</span>'
