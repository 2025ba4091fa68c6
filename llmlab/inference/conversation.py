"""Conversations: turns and their completions, kept so that `-c` can continue them."""

from __future__ import annotations

import secrets
import weakref
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from llmlab import _imports
from llmlab.errors import BadInputError, LlmLabError
from llmlab.types import Completion, Message


def new_id() -> str:
    """An id for a conversation: eight hex digits."""
    return secrets.token_hex(4)


@dataclass
class Conversation:
    """Turns in order, and the completion of each assistant turn.

    Attributes:
        messages: system, user and assistant turns, oldest first.
        completions: the completion of each assistant turn.
        started: when it was started (UTC).
        id: its id in the run log.
    """

    messages: list[Message] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=new_id, compare=False)

    def add(self, user: Message, completion: Completion) -> None:
        """Append a user turn and its completion, including a partial one."""
        self.messages += [user, *completion.turns, completion.message]
        self.completions.append(completion)

    def row(self) -> dict[str, Any]:
        """The conversation as a row of a data set; see `History.rows`.

        An assistant turn that was changed in `messages` counts as edited. Ratings are always 0: only chats have them.
        """
        generated = {message.content for one in self.completions for message in (*one.turns, one.message)}
        answers = [message for message in self.messages if message.role == "assistant"]
        last = self.completions[-1] if self.completions else None
        return {
            "messages": [as_row(message) for message in self.messages],
            "model": last.model if last else None,
            "engine": last.engine if last else None,
            "quant": last.quant if last else None,
            "adapter": last.adapter if last else None,
            "ratings": [0] * len(answers),
            "edited": [message.content not in generated for message in answers],
            "started": self.started.isoformat(timespec="seconds"),
        }

    def __len__(self) -> int:
        return len(self.completions)

    def __repr__(self) -> str:
        if not self.messages:
            return "(an empty conversation)"
        width = max(len(m.role) for m in self.messages)
        return "\n".join(f"{m.role:>{width}}: {m.content}" for m in self.messages)


@dataclass
class History:
    """All conversations of a lab, newest last."""

    conversations: list[Conversation] = field(default_factory=list)
    # Weak, so that the history doesn't keep widgets alive.
    chats: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet, repr=False, compare=False)

    def rows(self) -> list[dict[str, Any]]:
        """All conversations with an assistant turn, including open chats, oldest first, as rows of a data set.

        Returns:
            Dicts with `messages` (of a chat with versions: the shown ones, with edits), `model`, `engine`, `quant` and
            `adapter` of the last completion, `ratings` (one per assistant turn: 1, 0 or -1), `edited` (one per
            assistant turn) and `started` (ISO time, UTC).
        """
        rows = [one.row() for one in self.conversations] + [chat.row() for chat in self.chats]
        answered = [row for row in rows if any(message["role"] == "assistant" for message in row["messages"])]
        return sorted(answered, key=lambda row: str(row["started"]))

    def to_dataset(self) -> Any:
        """`rows` as a `datasets.Dataset`, ready for `llmlab.tune`.

        Raises:
            BadInputError: no conversation has an assistant turn.
            LlmLabError: the `tune` extra isn't installed.
        """
        rows = self.rows()
        if not rows:
            raise BadInputError("No conversation has an answer yet.", "Send a prompt with %%llm, or in llmlab.chat().")
        try:
            _imports.load("datasets")
            import datasets
        except ImportError as error:
            raise LlmLabError(
                "Building a data set needs the package datasets.", "pip install 'llmlab[tune]'"
            ) from error
        return datasets.Dataset.from_list(rows)

    @property
    def current(self) -> Conversation | None:
        """The newest conversation, or None before the first."""
        return self.conversations[-1] if self.conversations else None

    def start(self, system: str | None = None) -> Conversation:
        """Start a conversation, with an optional system prompt. An empty newest one is replaced."""
        messages = [Message("system", system)] if system else []
        if self.conversations and not self.conversations[-1].completions:
            self.conversations.pop()
        self.conversations.append(Conversation(messages))
        return self.conversations[-1]


def as_row(message: Message) -> dict[str, Any]:
    """A message as a row of a table with uniform columns: without images, and with tool call arguments as JSON."""
    return replace(message, images=()).as_openai()
