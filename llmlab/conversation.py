"""Conversations: what was said to which model, so that `-c` goes on and nothing said is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from llmlab.types import Completion, Message


@dataclass
class Conversation:
    """Turns in order, and the completion behind each answer.

    Attributes:
        messages: system, user and assistant turns, oldest first.
        completions: the completion behind each assistant turn.
        started: when it was started (UTC).
    """

    messages: list[Message] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def add(self, user: Message, completion: Completion) -> None:
        """Append a question and its answer (a partial answer too: what was seen is kept)."""
        self.messages += [user, Message("assistant", completion.text)]
        self.completions.append(completion)

    def __len__(self) -> int:
        return len(self.completions)

    def __repr__(self) -> str:
        if not self.messages:
            return "(an empty conversation)"
        width = max(len(m.role) for m in self.messages)
        return "\n".join(f"{m.role:>{width}}: {m.content}" for m in self.messages)


@dataclass
class History:
    """All conversations of a bench, newest last."""

    conversations: list[Conversation] = field(default_factory=list)

    @property
    def current(self) -> Conversation | None:
        """The newest conversation, or None before the first."""
        return self.conversations[-1] if self.conversations else None

    def start(self, system: str | None = None) -> Conversation:
        """Start a conversation, with a system prompt if one is given; an empty newest one is reused."""
        messages = [Message("system", system)] if system else []
        if self.conversations and not self.conversations[-1].completions:
            self.conversations.pop()
        self.conversations.append(Conversation(messages))
        return self.conversations[-1]
