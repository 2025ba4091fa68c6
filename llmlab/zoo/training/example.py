"""The corpus's data types: messages, dialogs, scored examples, and the hash that separates held-out data."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]

HELD_OUT_PERCENT = 8


@dataclass
class Dialog:
    """One conversation of a skill: its turns, and the key that determines its split."""

    skill: str
    key: tuple[str, ...]
    turns: list[Message]
    system: str = ""
    tools: list[Tool] | None = None

    @property
    def messages(self) -> list[Message]:
        """All messages, starting with the system message if there is one."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.turns


@dataclass
class Example:
    """One scored prompt: the messages up to the model's turn, and the expected answer."""

    skill: str
    messages: list[Message]
    answer: str
    tools: list[Tool] | None = None
    meta: dict[str, str] = field(default_factory=dict)


def is_held_out(key: Sequence[str]) -> bool:
    """Whether a combination belongs to the held-out split.

    Args:
        key: The parts of the combination, the skill's name first.

    Returns:
        True for about ``HELD_OUT_PERCENT`` of all combinations, the same ones on every machine.
    """
    digest = hashlib.blake2b("|".join(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


def user(content: str) -> Message:
    """Make a user message.

    Args:
        content: Its text.

    Returns:
        The message.
    """
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """Make an assistant message.

    Args:
        content: Its text.

    Returns:
        The message.
    """
    return {"role": "assistant", "content": content}


def roughen(rng: random.Random, text: str) -> str:
    """Occasionally change a question to the way people type: lower case, or no final punctuation.

    Args:
        rng: The random number generator.
        text: The question.

    Returns:
        The question, in most cases unchanged.
    """
    chance = rng.random()
    if chance < 0.08:
        text = text.lower()
    if 0.04 < chance < 0.14:
        text = text.rstrip(".?!")
    elif 0.14 < chance < 0.17:
        text = rng.choice(["Please: ", "Hey, ", "Quick question: ", "OK. ", "So, "]) + text
    return text
