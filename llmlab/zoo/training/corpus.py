"""The synthetic instruction corpus: a seeded, endless stream of training dialogs, and the held-out splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from llmlab.zoo.training import skills_chat, skills_memory, skills_story, skills_text, skills_world
from llmlab.zoo.training.example import Dialog, Example, Message


class _Maker(Protocol):
    def __call__(self, rng: random.Random, held: bool) -> Dialog: ...


_MAKERS: dict[str, _Maker] = {
    "facts": skills_world.facts,
    "extract": skills_text.extract,
    "sentiment": skills_text.sentiment,
    "tool": skills_chat.tool,
    "system": skills_world.system,
    "story": skills_story.story,
    "memory": skills_memory.memory,
}
# Kinds with no held-out split.
_MORE: dict[str, Callable[[random.Random], Dialog]] = {
    "small_talk": skills_chat.small_talk,
    "unknown": skills_world.unknown,
    "no_tool": skills_chat.no_tool,
    "persona": skills_chat.persona,
}
SKILLS: tuple[str, ...] = ("facts", "extract", "sentiment", "tool", "system", "story", "memory")
# The same dialogs, scored differently under another name.
_OTHER_VIEWS = {"tool_reply": "tool", "style": "system"}
_PAIRED = ("facts", "facts", "facts", "extract", "extract", "sentiment", "sentiment", "small_talk")

# Sampling weights of the kinds of dialog; "mixed" joins several short ones.
WEIGHTS: dict[str, float] = {
    "facts": 14,
    "extract": 26,
    "sentiment": 9,
    "tool": 15,
    "system": 18,
    "story": 5,
    "memory": 9,
    "small_talk": 2,
    "unknown": 1,
    "no_tool": 3,
    "persona": 2,
    "mixed": 6,
    "long": 0.6,
}


def _make(kind: str, rng: random.Random) -> Dialog:
    return _MORE[kind](rng) if kind in _MORE else _MAKERS[kind](rng, held=False)


def _mixed(rng: random.Random, low: int, high: int) -> Dialog:
    turns: list[Message] = []
    for _ in range(rng.randint(low, high)):
        turns += _make(rng.choice(_PAIRED), rng).turns
    return Dialog("mixed", ("mixed",), turns)


def _long(rng: random.Random) -> Dialog:
    """A name given at the start and asked for after many other turns."""
    inner = skills_memory.memory(rng, held=False)
    filler = _mixed(rng, 4, 14)
    return Dialog("long", inner.key, inner.turns[:2] + filler.turns + inner.turns[2:])


def training_dialogs(seed: int = 0, weights: Mapping[str, float] | None = None) -> Iterator[Dialog]:
    """Generate training dialogs endlessly.

    Args:
        seed: Seeds the stream; the same seed gives the same dialogs on every machine.
        weights: Sampling weight of each kind; default: ``WEIGHTS``.

    Yields:
        Dialogs without held-out combinations.
    """
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    weights = weights or WEIGHTS
    kinds, shares = list(weights), list(weights.values())
    while True:
        kind = rng.choices(kinds, shares)[0]
        if kind == "mixed":
            yield _mixed(rng, 2, 4)
        elif kind == "long":
            yield _long(rng)
        else:
            dialog = _make(kind, rng)
            if not dialog.system and rng.random() < 0.05 and kind != "persona":
                dialog.system = rng.choice(skills_world.PLAIN_SYSTEMS)
            yield dialog


def dialogs(skill: str, n: int = 200, seed: int = 0) -> list[Dialog]:
    """Generate complete held-out dialogs of one skill.

    Args:
        skill: One of ``SKILLS``.
        n: Number of examples.
        seed: The seed.

    Returns:
        Dialogs whose combinations are never in the training data.

    Raises:
        ValueError: The skill is not known.
    """
    if skill not in SKILLS:
        raise ValueError(f"unknown skill {skill!r}: one of {', '.join(SKILLS)}")
    rng = random.Random(f"held-out {skill} {seed}")  # noqa: S311
    out: list[Dialog] = []
    seen: set[str] = set()
    for _ in range(50 * n):
        dialog = _MAKERS[skill](rng, held=True)
        text = str(dialog.messages)
        if text not in seen:
            seen.add(text)
            out.append(dialog)
        if len(out) == n:
            break
    return out


def heldout(skill: str, n: int = 200, seed: int = 0) -> list[Example]:
    """Generate the held-out split of one skill, ready to be scored.

    Args:
        skill: One of ``SKILLS``, or ``"tool_reply"`` for the sentence after the calculator's reply, or
            ``"style"`` for the questions of ``"system"`` scored only on style.
        n: Number of examples.
        seed: The seed.

    Returns:
        Examples whose last message is the user's (or the tool's) and whose ``answer`` is the expected answer;
        for a tool call, the call's plain JSON.

    Raises:
        ValueError: The skill is not known.
    """
    from llmlab.zoo.training.template import call_text

    out = []
    for dialog in dialogs(_OTHER_VIEWS.get(skill, skill), n, seed):
        messages = dialog.messages
        last = len(messages) - 1
        if skill == "tool":
            last = next(i for i, message in enumerate(messages) if message.get("tool_calls"))
        target = messages[last]
        answer = call_text(target["tool_calls"][0]) if target.get("tool_calls") else str(target["content"])
        meta = {"hero": dialog.key[1], "thing": dialog.key[2]} if skill == "story" else {}
        if skill in ("system", "style"):
            meta = {"style": dialog.key[1]}
        if skill == "memory":
            meta = {"name": dialog.key[2]}
        out.append(Example(skill, messages[:last], answer, dialog.tools, meta))
    return out
