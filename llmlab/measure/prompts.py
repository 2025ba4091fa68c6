"""The same-prompt gate: whether two models are asked the same thing, compared before their answers are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Unpack

from llmlab.engines.base import Rendered
from llmlab.errors import LlmLabError
from llmlab.options import GenerateOptions, known_keywords
from llmlab.render.safe import escape, plain
from llmlab.render.table import LINE, MONO, QUIET, Table
from llmlab.types import SamplingParams
from llmlab.types.params import NEUTRAL

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.model import Model
    from llmlab.types import Prompt

UNSET = "the server's default"
_SKIPPED = ("seed", "n", "logprobs")
# Without an effect at temperature 0.
_SAMPLED = ("top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold")
_DRY = ("dry_base", "dry_allowed_length", "dry_sequence_breakers")
_CONTEXT_LETTERS = 160


@dataclass(frozen=True)
class SamePrompt:
    """What two models read for a conversation, compared.

    Attributes:
        a, b: what each reads: `.text`, `.ids`, `.params`, `.context`.
        same: whether they read the same tokens (or the same text, where ids can't be had); None: it can't be known.
        settings: sampling params, stops and context that differ: name -> (a's, b's).
        unknown: what can't be compared, and why.

    Example:
        >>> other = llmlab.load("nano", engine="llamacpp", name="other", ctx=512)
        >>> found = llmlab.same_prompt("nano", "other", "hi", temperature=0, max_tokens=8)
        >>> found.same, list(found.settings)
        (True, ['context'])
        >>> llmlab.lab().unload("other")
        ['other']
    """

    a: Rendered
    b: Rendered
    same: bool | None
    settings: Mapping[str, tuple[Any, Any]]
    unknown: tuple[str, ...] = ()

    @property
    def first(self) -> int | None:
        """The position of the first token that differs; None if no ids differ, or they can't be had."""
        if self.a.ids is None or self.b.ids is None or self.a.ids == self.b.ids:
            return None
        pairs = zip(self.a.ids, self.b.ids, strict=False)
        shorter = min(len(self.a.ids), len(self.b.ids))
        return next((place for place, (x, y) in enumerate(pairs) if x != y), shorter)

    @property
    def diff(self) -> str:
        """The differing text and settings as lines of a diff, with - for a's and + for b's; "" if nothing differs."""
        lines = []
        if self.same is False:
            if self.a.text is not None and self.b.text is not None and self.a.text != self.b.text:
                before, after = self.a.text.splitlines(keepends=True), self.b.text.splitlines(keepends=True)
                changes = difflib.unified_diff(before, after, n=1, lineterm="")
                lines += [one.rstrip("\n") for one in changes if not one.startswith(("---", "+++", "@@"))]
            if self.first is not None and self.a.ids is not None and self.b.ids is not None:
                place = self.first
                lines += [f"- token {place}: {_ids(self.a.ids, place)}", f"+ token {place}: {_ids(self.b.ids, place)}"]
        for name, (one, other) in self.settings.items():
            lines += [f"- {name}: {one}", f"+ {name}: {other}"]
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """The result in one line."""
        names = f"{self.a.model} and {self.b.model}"
        if self.same is None:
            return f"Whether {names} read the same prompt can't be known: {'; '.join(self.unknown)}."
        if not self.same:
            where = f" from token {self.first} on" if self.first is not None else ""
            return f"{names} don't read the same prompt: it differs{where}."
        count = f" ({len(self.a.ids):,} tokens)" if self.a.ids is not None and self.b.ids is not None else " (text)"
        return f"{names} read the same prompt{count}."

    def as_dict(self) -> dict[str, Any]:
        """What is stored with a result: JSON's types only.

        Example:
            >>> found = llmlab.same_prompt("nano", "nano", "hi")
            >>> found.as_dict()["same"], found.as_dict()["diff"]
            (True, '')
        """
        return {
            "models": [self.a.model, self.b.model],
            "same": self.same,
            "line": self.line,
            "diff": self.diff,
            "texts": [self.a.text, self.b.text],
            "unknown": list(self.unknown),
        }

    def __bool__(self) -> bool:
        return self.same is True

    def __repr__(self) -> str:
        parts = [self.line]
        if self.settings:
            parts.append(f"Settings that differ: {', '.join(self.settings)}.")
        shown = self.diff
        return plain("\n".join([*parts, *([shown] if shown else [])]))

    def _repr_html_(self) -> str:
        parts = [f"<b>{escape(self.line)}</b>"]
        if self.same is False and self.a.text is not None and self.b.text is not None:
            left, right = _marked(self.a.text, self.b.text)
            cell = f"border:{LINE};{MONO};white-space:pre-wrap;padding:4px 8px;flex:1;min-width:12em"
            parts.append(
                '<div style="display:flex;gap:8px;flex-wrap:wrap;margin:4px 0">'
                f'<div style="{cell}"><div style="{QUIET}">{escape(self.a.model)}</div>{left}</div>'
                f'<div style="{cell}"><div style="{QUIET}">{escape(self.b.model)}</div>{right}</div></div>'
            )
        if self.first is not None and self.a.ids is not None and self.b.ids is not None:
            place = self.first
            text = f"token {place}: {_ids(self.a.ids, place)} | {_ids(self.b.ids, place)}"
            parts.append(f'<div style="{MONO}">{escape(text)}</div>')
        if self.settings:
            rows = [(name, str(one), str(other)) for name, (one, other) in self.settings.items()]
            parts.append(Table(("setting", self.a.model, self.b.model), rows).html())
        if self.unknown and self.same is not None:
            parts.append(f'<div style="{QUIET}">{escape("; ".join(self.unknown))}</div>')
        return f'<div class="llmlab">{"".join(parts)}</div>'


@known_keywords
def same_prompt(
    a: Model,
    b: Model,
    messages: Prompt,
    *,
    system: str | None = None,
    raw: bool = False,
    **options: Unpack[GenerateOptions],
) -> SamePrompt:
    """Compare what two models read for a conversation, and the settings they answer with. Nothing is generated.

    Args:
        a: a model.
        b: another one.
        messages: a user's text, or a conversation.
        system: a system prompt.
        raw: send the text without the chat template.
        options: those of `Model.generate`.

    Raises:
        BadInputError, UnsupportedError: a model refuses the prompt or an option.
    """
    streams = [model.stream(messages, system=system, raw=raw, **options) for model in (a, b)]
    return of_streams(streams)[0]


def of_streams(streams: Sequence[Stream]) -> list[SamePrompt]:
    """Compare requests that weren't started: the first with each of the others.

    A server that fails to show its prompt makes the result unknown; its request will tell what is wrong.
    """
    readings = [_reading(stream) for stream in streams]
    return [compared(readings[0], other) for other in readings[1:]]


def _reading(stream: Stream) -> Rendered:
    try:
        return stream.reading()
    except LlmLabError as error:
        return Rendered(None, None, error.message)


def compared(a: Rendered, b: Rendered) -> SamePrompt:
    """Compare what two models read."""
    unknown = [f"{one.model or 'a model'}: {one.note}" for one in (a, b) if one.note]
    ids = a.ids == b.ids if a.ids is not None and b.ids is not None else None
    text = a.text == b.text if a.text is not None and b.text is not None else None
    # Token ids are what a model reads: servers add the first token to the text or to its ids.
    same = ids if ids is not None else text
    if ids is None and text is not None:
        missing = " and ".join(one.model for one in (a, b) if one.ids is None)
        unknown.append(f"the token ids of {missing} can't be had")
    return SamePrompt(a, b, same, _settings(a, b), tuple(dict.fromkeys(unknown)))


def _settings(a: Rendered, b: Rendered) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    greedy = a.params.temperature == 0 and b.params.temperature == 0
    for item in fields(SamplingParams):
        name = item.name
        if name in _SKIPPED or (greedy and name in _SAMPLED):
            continue
        if name in _DRY and not (a.params.dry_multiplier or b.params.dry_multiplier):
            continue
        if name == "xtc_threshold" and not (a.params.xtc_probability or b.params.xtc_probability):
            continue
        one, other = getattr(a.params, name), getattr(b.params, name)
        if one == other or {_plain(name, one), _plain(name, other)} <= {None}:
            continue
        found[name] = tuple(UNSET if value is None else value for value in (one, other))  # type: ignore[assignment]
    if a.context != b.context:
        found["context"] = (a.context, b.context)
    if a.adapter != b.adapter:
        found["adapter"] = (a.adapter or "none", b.adapter or "none")
    return found


def _plain(name: str, value: Any) -> Any:
    """A value without an effect as None; anything else as its text."""
    return None if value is None or value == NEUTRAL.get(name, object()) else str(value)


def _ids(ids: Sequence[int], place: int) -> str:
    shown = ", ".join(str(one) for one in ids[place : place + 8])
    return f"{shown}{', …' if len(ids) > place + 8 else ''}" or "the end"


def _marked(before: str, after: str) -> tuple[str, str]:
    """Two texts as HTML, each with its own parts marked; long equal parts are shortened."""
    left, right = [], []
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        one, other = before[a1:a2], after[b1:b2]
        if kind == "equal":
            if len(one) > 2 * _CONTEXT_LETTERS:
                one = other = f"{one[:_CONTEXT_LETTERS]} … {one[-_CONTEXT_LETTERS:]}"
            left.append(escape(one))
            right.append(escape(other))
            continue
        if one:
            left.append(f"<del>{escape(one)}</del>")
        if other:
            right.append(f"<ins>{escape(other)}</ins>")
    return "".join(left), "".join(right)
