"""How model families mark their thoughts, as data, and the split of a text into thought and answer.

The marks are those of the models' own chat templates. A checkpoint's `response_template` metadata takes precedence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmlab.engines.templates import render, variables
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.types import Message

Think = bool | str | int | None
"""The value of `think=`."""
EFFORTS = ("low", "medium", "high")
Stage = Literal["start", "thought", "answer"]
_WORDS: dict[str, bool | str] = {"on": True, "off": False, **{effort: effort for effort in EFFORTS}}


def think_of(text: str) -> Think:
    """The value of `think=` from its text form: on, off, low, medium, high or a number of tokens; "" for None.

    Raises:
        BadInputError: it is none of these.
    """
    word = text.strip().lower()
    if not word:
        return None
    if word in _WORDS:
        return _WORDS[word]
    if not (word.isascii() and word.isdecimal()):
        raise BadInputError(f"think is on, off, low, medium, high or a number of tokens, not {text!r:.60}.")
    return int(word)


def think_text(think: Think) -> str:
    """The text form of a value of `think=`; "" for None.

    Raises:
        BadInputError: it isn't such a value.
    """
    if isinstance(think, bool):
        return "on" if think else "off"
    text = "" if think is None else str(think)
    think_of(text)
    return text.strip().lower()


@dataclass(frozen=True, slots=True)
class ThoughtFamily:
    """How a model family marks a thought.

    Attributes:
        name: the family's name.
        opening: the text before a thought.
        closing: the text after it.
        after: what the model writes between the closing mark and the answer.
        marks: texts of which one must be in the chat template; default: the opening mark.
        inside: what the model writes between the marks and the thought.
        header: opens each message of the answer's turn, which then names its channel ("" without channels).
        answer: the channel of the answer, after the header.
        body: ends the name of a channel.
    """

    name: str
    opening: str
    closing: str
    after: str = "\n\n"
    marks: tuple[str, ...] = ()
    inside: str = "\n"
    header: str = ""
    answer: str = ""
    body: str = ""

    def answer_head(self, *, named: bool = False) -> str:
        """The text between the closing mark and the answer.

        Args:
            named: the answer itself names its channel.
        """
        return self.header + ("" if named else self.answer) if self.header else self.after

    def stage(self, written: Sequence[int], text: str, tokenize: Callable[[str], list[int]], *, opened: bool) -> Stage:
        """Where the tokens of a turn without an answer so far end.

        Args:
            written: the tokens.
            text: their visible text: a mark may be hidden from it, or be written with other tokens than its own.
            tokenize: text to token ids.
            opened: whether the prompt before them opens the thought.
        """
        if not self.header:
            if self.closing in text or _last(written, tokenize(self.closing)) >= 0:
                return "answer"
            return "thought" if opened or written else "start"
        named, headed = _last(written, tokenize(self.body)), _last(written, tokenize(self.header))
        if named <= headed:
            return "thought" if opened and headed < 0 else "start"
        analysis = tokenize(self.opening.removesuffix(self.body))
        thinks = tuple(written[named - len(analysis) : named]) == tuple(analysis)
        return "thought" if thinks else "answer"


# The first row with a mark in the template is used.
FAMILIES: tuple[ThoughtFamily, ...] = (
    ThoughtFamily(
        "harmony",
        "<|channel|>analysis<|message|>",
        "<|end|>",
        after="",
        marks=("<|channel|>analysis",),
        inside="",
        header="<|start|>assistant",
        answer="<|channel|>final<|message|>",
        body="<|message|>",
    ),
    ThoughtFamily("gemma4", "<|channel>thought\n", "<channel|>", after="", marks=("<|channel>",), inside=""),
    ThoughtFamily("magistral", "[THINK]", "[/THINK]", after="", inside=""),
    ThoughtFamily("seed-oss", "<seed:think>", "</seed:think>", after="\n"),
    ThoughtFamily("minimax-m3", "<mm:think>", "</mm:think>", after="", inside=""),
    ThoughtFamily("command-a", "<|START_THINKING|>", "<|END_THINKING|>", after="", inside=""),
    ThoughtFamily("kimi-vl", "◁think▷", "◁/think▷", after="", inside=""),
    # DeepSeek, Qwen, Kimi K2, GLM, MiniMax M2, Nemotron, SmolLM3 and most others.
    ThoughtFamily("think", "<think>", "</think>", marks=("<think>", "</think>")),
)


def _last(ids: Sequence[int], part: Sequence[int]) -> int:
    """Where a sequence of tokens occurs last; -1 if it doesn't."""
    places = range(len(ids) - len(part), -1, -1) if part else ()
    return next((at for at in places if list(ids[at : at + len(part)]) == list(part)), -1)


Part = tuple[Literal["thought", "answer"], str]


class Splitter:
    """Splits a growing text into thought and answer. Text that may become a mark is held back.

    Args:
        family: the marks.
        opened: the prompt has already opened the thought.
    """

    def __init__(self, family: ThoughtFamily, *, opened: bool = False) -> None:
        self._family = family
        self._held = ""
        self.state: Literal["start", "thought", "answer"] = "thought" if opened else "start"

    def feed(self, text: str) -> list[Part]:
        """Add text; returns the parts that are certain now."""
        self._held += text
        parts: list[Part] = []
        if self.state == "start":
            self._start()
        if self.state == "thought":
            self._thought(parts)
        if self.state == "answer" and self._held:
            parts.append(("answer", self._held))
            self._held = ""
        return parts

    def flush(self) -> list[Part]:
        """The text ends: what was held back."""
        rest, self._held = self._held, ""
        if not rest:
            return []
        return [("thought" if self.state == "thought" else "answer", rest)]

    def _start(self) -> None:
        opening = self._family.opening.rstrip()
        seen = self._held.lstrip()
        if seen.startswith(opening):
            # The mark's own line break belongs to it.
            self._held = seen[len(opening) :].removeprefix(self._family.opening[len(opening) :])
            self.state = "thought"
        elif not opening.startswith(seen):
            self.state = "answer"

    def _thought(self, parts: list[Part]) -> None:
        closing = self._family.closing
        thought, mark, rest = self._held.partition(closing)
        if mark:
            self.state, self._held = "answer", rest
        else:
            keep = next((n for n in range(len(closing) - 1, 0, -1) if thought.endswith(closing[:n])), 0)
            thought, self._held = thought[: len(thought) - keep], thought[len(thought) - keep :]
        if thought:
            parts.append(("thought", thought))


def split(text: str, family: ThoughtFamily, *, opened: bool = False) -> tuple[str, str]:
    """Split a complete text into (thought, answer), without their surrounding white space."""
    if family.header:
        return _split_channels(text, family)
    splitter = Splitter(family, opened=opened)
    parts = [*splitter.feed(text), *splitter.flush()]
    thought, answer = ("".join(text for kind, text in parts if kind == wanted) for wanted in ("thought", "answer"))
    return thought.strip(), answer.strip() if thought else answer


def _split_channels(text: str, family: ThoughtFamily) -> tuple[str, str]:
    """Split a text of messages that each name their channel."""
    thoughts, answers = [], []
    for message in text.split(family.header):
        head, mark, body = message.partition(family.body)
        body = body.split(family.closing)[0]
        if not mark:
            answers.append(head)
        elif f"{head}{mark}".endswith(family.opening):
            thoughts.append(body)
        else:
            answers.append(body)
    return "\n".join(thoughts).strip(), "".join(answers).strip()


# -- what a template does ------------------------------------------------------------------------------


def family_of(
    template: str | None, metadata: Mapping[str, Any] | None, is_token: Callable[[str], bool] = lambda _: False
) -> ThoughtFamily | None:
    """A model's family, or None if it has no marks of a thought.

    Args:
        template: the chat template.
        metadata: the checkpoint's `response_template`, which takes precedence.
        is_token: whether a text is a single token; a template may leave the marks to the model.
    """
    if not template:
        return None
    declared = _declared(metadata)
    if declared is not None:
        return _measured(declared, template)
    for family in FAMILIES:
        if any(mark in template for mark in family.marks or (family.opening,)):
            return _measured(family, template)
    for family in FAMILIES:
        if not family.header and family.name != "gemma4" and is_token(family.opening) and is_token(family.closing):
            return family
    return None


def _declared(metadata: Mapping[str, Any] | None) -> ThoughtFamily | None:
    """The marks that a checkpoint's `response_template` declares as literals."""
    fields = metadata.get("fields") if isinstance(metadata, Mapping) else None
    thinking = fields.get("thinking") if isinstance(fields, Mapping) else None
    if not isinstance(thinking, Mapping):
        return None

    def literal(name: str) -> str | None:
        value = thinking.get(name)
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, str) and value.strip() else None

    opening, closing = literal("open"), literal("close")
    if opening is None or closing is None:
        return None
    known = next((one for one in FAMILIES if one.opening == opening and one.closing == closing), None)
    return known or ThoughtFamily("response_template", opening, closing, after="", inside="")


_THOUGHT, _ANSWER = "Zthoughtq", "Zanswerq"


@functools.lru_cache(maxsize=64)
def _measured(family: ThoughtFamily, template: str) -> ThoughtFamily:
    """The family with the white space that this template writes around a thought, if it writes one."""
    if family.header:
        return family
    turns = [Message("user", "hi"), Message("assistant", _ANSWER, reasoning=_THOUGHT)]
    try:
        text = render(template, turns, special_tokens={}, add_generation_prompt=False)
    except BadInputError:
        return family
    head, thought, rest = text.partition(_THOUGHT)
    before, closing, after = rest.partition(family.closing)
    _, opening, inside = head.rpartition(family.opening.rstrip())
    after, answer, _ = after.partition(_ANSWER)
    if not (thought and closing and opening and answer) or (before + inside + after).strip():
        return family
    return replace(family, after=after, inside=inside if family.opening.rstrip() == family.opening else family.inside)


# Variables that turn a thought on and off, with both values.
SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),
    "thinking": (True, False),
    "thinking_mode": ("enabled", "disabled"),
}
EFFORT_NAMES = ("reasoning_effort", "thinking_effort")


def switches(template: str | None, think: Think, family: ThoughtFamily | None, model: str) -> dict[str, Any]:
    """The template variables for `think=`.

    Args:
        template: the chat template.
        think: True, False, an effort, or the most tokens of a thought; None leaves it to the template.
        family: the model's family.
        model: its name, for the error.

    Raises:
        BadInputError: the value is none of these.
        UnsupportedError: the template has no variable for it.
    """
    if think is None:
        return {}
    count = isinstance(think, int) and not isinstance(think, bool)
    if (count and think < 0) or not (count or isinstance(think, bool) or think in EFFORTS):  # type: ignore[operator]
        raise BadInputError(
            f"think is True, False, low, medium, high, or the most tokens of a thought, got {think!r:.60}."
        )
    if family is None or template is None:
        if think is False or (count and think == 0):
            return {}
        raise UnsupportedError(
            f"{model} doesn't reason: its chat template and vocabulary have no marks of a thought.",
            "Leave think out, or load a model that does (Qwen3, gpt-oss, DeepSeek, GLM, Magistral).",
        )
    read = variables(template)
    found = [name for name in SWITCHES if name in read]
    efforts = [name for name in EFFORT_NAMES if name in read]
    if isinstance(think, str):
        if not efforts:
            others = f"; it reads {', '.join(found)}" if found else ""
            raise UnsupportedError(
                f"{model} has no effort of reasoning to set: its chat template doesn't read {EFFORT_NAMES[0]}{others}.",
                "Use think=True, think=False or the most tokens of a thought: think=200.",
            )
        return dict.fromkeys(efforts, think) | {name: SWITCHES[name][0] for name in found}
    if think is False and not found:
        raise UnsupportedError(
            f"{model} can't turn reasoning off: its chat template reads none of {', '.join(SWITCHES)}.",
            "think=0 closes the thought before it starts.",
        )
    if count and think == 0:
        return {}
    return {name: SWITCHES[name][0 if think else 1] for name in found}


Mode = Literal["opened", "closed", "free"]


def mode_of(prompt: str, family: ThoughtFamily) -> Mode:
    """Whether a rendered prompt ends inside a thought, after one, or leaves it to the model."""
    end = prompt.rstrip()
    if end.endswith(family.opening.rstrip()):
        return "opened"
    if end.endswith(family.closing) and family.opening.rstrip() in end[-200:]:
        return "closed"
    return "closed" if not family.header and end.endswith(family.closing) else "free"


def thinks_by_default(template: str, special_tokens: Mapping[str, str], family: ThoughtFamily) -> bool:
    """Whether a model whose template leaves the thought to it thinks: by its template's switch, or by its channels."""
    read = variables(template)
    names = [name for name in SWITCHES if name in read]
    if not names:
        return bool(family.header)

    def prompt(values: Mapping[str, Any]) -> str:
        return render(template, [Message("user", "hi")], special_tokens=special_tokens, variables=values)

    try:
        return prompt({}) != prompt({name: SWITCHES[name][1] for name in names})
    except BadInputError:
        return False
