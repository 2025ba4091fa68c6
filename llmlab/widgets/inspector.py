"""The inspector: each token's probability, its alternatives, and continuations from an alternative."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets as t

from llmlab.errors import BadInputError, UnloadedError, UnsupportedError
from llmlab.options import GenerateOptions
from llmlab.render.safe import escape, markdown, plain
from llmlab.types import Completion, Guidance
from llmlab.widgets import assets, static_forms
from llmlab.widgets.base import BenchWidget
from llmlab.widgets.pump import Answering

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab

TOP = 5
UPDATE_EVERY_S = 0.12
# The static form shows only the start of a long text.
STATIC_TOKENS = 400

Row = list[Any]


class Inspector(BenchWidget):
    """A completion, token by token. Created by `completion.inspect()`.

    Traits: `versions` (the completion and its continuations: label, rows of [text, probability, top-k], the position
        where it differs from the first), `shown` (the index of the version), `running`, `mask` (for a guided
        completion: the probability that the constraint removed at each token, and the model's preferred token).

    Example:
        >>> done = model.generate("What is the capital of France?", temperature=0, logprobs=5)
        >>> inspector = done.inspect()
        >>> inspector.versions[0]["rows"][0][0]
        'The'
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
    guided = t.Dict(help="the constraint's name, and its effect in one line").tag(sync=True)
    mask: t.List[Any] = t.List(help="a dict or None for each token of the first version").tag(sync=True)

    def __init__(self, completion: Completion, *, lab: Lab | None = None, choice: int = 0) -> None:
        """Inspect a completion.

        Args:
            completion: a completion; with `logprobs=K` it has the K most likely tokens at each step.
            lab: the Lab that has the model (to continue from another token).
            choice: the index of the choice, from 0.

        Raises:
            BadInputError: there is no such choice.
        """
        if not 0 <= choice < len(completion.choices):
            raise BadInputError(f"There is no choice {choice}: the completion has {len(completion.choices)}.")
        self._completion = completion
        self._answering: Answering | None = None
        super().__init__(lab)
        one = completion.choices[choice]
        guidance = completion.guidance if choice == 0 else None  # it describes the first choice
        if one.logprobs is not None:
            rows = static_forms.token_rows(one.logprobs)
        else:
            rows = self._plain_rows(one.token_ids, one.text)
        if guidance is not None:
            self.mask = masks(one.token_ids, guidance, greedy=completion.params.temperature == 0)
            self.guided = {"name": guidance.name, "summary": guided_line(guidance)}
            if one.logprobs is None and len(rows) == len(self.mask):  # the probabilities were measured for the mask
                rows = [[r[0], m["probability"] if m else None, []] for r, m in zip(rows, self.mask, strict=True)]
        self.versions = [_version("Original", rows, completion)]

    @property
    def completion(self) -> Completion:
        """The inspected completion."""
        return self._completion

    def continue_from(self, token: int, alternative: int | str) -> Answering:
        """Continue as if another token had been generated.

        Args:
            token: the index of the token, from 0, in the version shown.
            alternative: the index among its most likely tokens (0 is the most likely), or any text.

        Returns:
            The answer in progress: `.result()` is the completion after the forced text.

        Raises:
            BadInputError: there is no such token or alternative.
            UnsupportedError: the prompt has an image.
            UnloadedError: its model was unloaded.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0, logprobs=5)
            >>> done.inspect().continue_from(0, "It").result().text  # doctest: +VARIES
            ' Paris is Paris.'
        """
        rows: list[Row] = self.versions[self.shown]["rows"]
        if not 0 <= token < len(rows):
            raise BadInputError(f"There is no token {token}: the text has {len(rows)} tokens.")
        top = rows[token][2]
        if isinstance(alternative, str):
            forced, probability = alternative, None
        elif 0 <= alternative < len(top):
            forced, probability = top[alternative]
        else:
            raise BadInputError(f"There is no alternative {alternative}: token {token} has {len(top)} alternatives.")
        if not forced or "\ufffd" in forced:
            raise BadInputError(
                "This token isn't text (the end of the turn, or part of a character).", "Choose another one."
            )
        prefix = [*rows[:token], [forced, probability, top]]
        return self._go(prefix, f"“{forced.strip() or forced}” at {token + 1}", token)

    def again(self) -> Answering:
        """Generate again with the same seed, keeping the token probabilities.

        Example:
            >>> done = model.generate("What is the capital of France?", temperature=0)
            >>> done.inspect().again().result().text
            'The capital of France is Paris.'
        """
        return self._go([], "Generated again", 0)

    def stop(self) -> None:
        """Stop the running continuation; the partial text is kept.

        Example:
            >>> inspector = model.generate("Hello!", temperature=0).inspect()
            >>> inspector.stop()
        """
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

    # -- internals ---------------------------------------------------------------------------------

    def _loaded(self) -> Model:
        model = self.lab.models.get(self._completion.model)
        if model is None:
            raise UnloadedError(
                f"{self._completion.model}, which generated this, isn't loaded.",
                f"Load it as {self._completion.model} to continue from here.",
            )
        return model

    def _go(self, prefix: list[Row], label: str, at: int) -> Answering:
        if self.running:
            raise BadInputError("A continuation is still being generated.", "Wait until it finishes, or stop it.")
        done, model = self._completion, self._loaded()
        if any(message.images for message in done.messages):
            raise UnsupportedError(
                "The prompt has an image, and a continuation can't include one.",
                "Prompt with the image again.",
            )
        asked = done.params.logprobs or TOP
        params = replace(done.params, n=1, logprobs=max(asked, 1))
        more: GenerateOptions = {"adapter": done.adapter} if done.adapter else {}
        stream = model.stream(done.prompt + "".join(row[0] for row in prefix), raw=True, params=params, **more)
        with self.hold_sync():
            self.versions = [*self.versions, _version(label, prefix, None, at=at)]
            self.shown = len(self.versions) - 1
            self.running = True
        number = self.shown

        last = [0.0]

        def piece(_start: int, _new: str, _tokens: int) -> None:
            # Each update contains all rows, so updates are less frequent than a chat's.
            if time.monotonic() - last[0] < UPDATE_EVERY_S:
                return
            last[0] = time.monotonic()
            self._set(number, [*prefix, *static_forms.token_rows(stream.partial().logprobs or ())], None)

        def ended(completion: Completion | None, error: BaseException | None) -> None:
            if self._closed:
                return
            with self._guard, self.hold_sync():
                if completion is not None:
                    self._set(number, [*prefix, *static_forms.token_rows(completion.logprobs or ())], completion)
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
        """Tokens without probabilities, if the model is loaded to tokenize the text."""
        model = self.lab.models.get(self._completion.model)
        if model is None:
            return [[text, None, []]]
        pieces = [model.detokenize([one]) for one in ids]
        return (
            [[piece, None, []] for piece in pieces] if "".join(pieces).strip() == text.strip() else [[text, None, []]]
        )

    def _cancel_all(self) -> None:
        self.stop()

    # -- static form ----------------------------------------------------------------------------------

    def markdown(self) -> str:
        """The completion, and its least certain tokens."""
        rows = self.versions[self.shown]["rows"]
        text = markdown("".join(row[0] for row in rows))
        notes = [self._doubts(rows), *([self.guided["summary"]] if self.guided and not self.shown else [])]
        return f"{text}\n\n<small>{escape('. '.join(notes))}</small>"

    def text(self) -> str:
        """The completion, and its least certain tokens."""
        rows = self.versions[self.shown]["rows"]
        return plain("".join(row[0] for row in rows)) + f"\n[{plain(self._doubts(rows))}]"

    def html(self) -> str:
        """The tokens, shaded: the darker the background, the lower the probability."""
        rows = self.versions[self.shown]["rows"]
        spans = "".join(_span(row) for row in rows[:STATIC_TOKENS])
        rest = f" … {len(rows) - STATIC_TOKENS:,} more tokens" if len(rows) > STATIC_TOKENS else ""
        body = f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{spans}{rest}</div>'
        body += f"<div>{escape(self.guided['summary'])}</div>" if self.guided and not self.shown else ""
        return static_forms.frame(f"{self._completion.model}: {self._doubts(rows)}", body)

    def _doubts(self, rows: Sequence[Row]) -> str:
        known = [row for row in rows if row[1] is not None]
        if not known:
            return "no token probabilities (generate with logprobs=5)"
        least = sorted(known, key=lambda row: row[1])[:3]
        mean = sum(row[1] for row in known) / len(known)
        doubts = ", ".join(f"{row[0]!r} {static_forms.percent(row[1])}" for row in least)
        return f"{len(rows)} tokens, mean probability {static_forms.percent(mean)}; least likely: {doubts}"

    def __repr__(self) -> str:
        return f"<Inspector of {len(self.versions[0]['rows'])} tokens of {self._completion.model}>"


def _version(label: str, rows: list[Row], completion: Completion | None, at: int = 0) -> dict[str, Any]:
    line = static_forms.quiet_line(completion) if completion is not None else ""
    return {"label": label, "rows": rows, "at": at, "line": line}


def masks(ids: Sequence[int], guidance: Guidance, *, greedy: bool) -> list[dict[str, Any] | None]:
    """The constraint's effect at each token; None where it wasn't measured.

    Args:
        ids: the tokens.
        guidance: the measured effect.
        greedy: decoding was greedy, so all tokens more likely than the chosen one were masked.
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
    """The constraint's effect, in one line."""
    if guidance.removed is None:
        return f"{guidance.name} ({guidance.kind}): {guidance.note or 'not measured'}"
    share, count = static_forms.percent(guidance.removed), len(guidance.steps)
    return (
        f"{guidance.name} ({guidance.kind}) removed {share} of the probability per token on average, and masked the "
        f"model's most likely token at {guidance.changed} of {count} tokens"
    )


def _span(row: Row) -> str:
    if row[1] is None:
        return escape(row[0])
    doubt = f"background:rgba(200,120,0,{(1 - row[1]) * 0.6:.2f})"
    return f'<span style="{doubt}" title="{static_forms.percent(row[1])}">{escape(row[0])}</span>'
