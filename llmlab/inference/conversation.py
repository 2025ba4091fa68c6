"""Conversations: what was said to which model, so that `-c` goes on and nothing said is lost."""

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
    """A name for a conversation: eight letters and digits."""
    return secrets.token_hex(4)


@dataclass
class Conversation:
    """Turns in order, and the completion behind each answer.

    Attributes:
        messages: system, user and assistant turns, oldest first.
        completions: the completion behind each assistant turn.
        started: when it was started (UTC).
        id: what the run log calls it.
    """

    messages: list[Message] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=new_id, compare=False)

    def add(self, user: Message, completion: Completion) -> None:
        """Append a question and its answer (a partial answer too: what was seen is kept)."""
        self.messages += [user, *completion.turns, completion.message]
        self.completions.append(completion)

    def row(self) -> dict[str, Any]:
        """The conversation as a row of a data set; see `History.rows`.

        An answer that was changed in `messages` counts as edited. Nobody rates here, so that all ratings are 0.
        """
        said = {message.content for one in self.completions for message in (*one.turns, one.message)}
        answers = [message for message in self.messages if message.role == "assistant"]
        last = self.completions[-1] if self.completions else None
        return {
            "messages": [as_row(message) for message in self.messages],
            "model": last.model if last else None,
            "engine": last.engine if last else None,
            "quant": last.quant if last else None,
            "adapter": last.adapter if last else None,
            "ratings": [0] * len(answers),
            "edited": [message.content not in said for message in answers],
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
    """All conversations of a bench, newest last."""

    conversations: list[Conversation] = field(default_factory=list)
    # Weak: a history keeps no widget alive.
    chats: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet, repr=False, compare=False)

    def rows(self) -> list[dict[str, Any]]:
        """All conversations with an answer, those of open chats too, oldest first, as rows of a data set.

        Returns:
            Dicts with `messages` (of a chat with versions: those shown, edits included), `model`, `engine`, `quant` and
            `adapter` of the last answer, `ratings` (one for each assistant turn: 1, 0 or -1), `edited` (one for each
            assistant turn) and `started` (ISO time, UTC).
        """
        rows = [one.row() for one in self.conversations] + [chat.row() for chat in self.chats]
        answered = [row for row in rows if any(message["role"] == "assistant" for message in row["messages"])]
        return sorted(answered, key=lambda row: str(row["started"]))

    def to_dataset(self) -> Any:
        """`rows` as a `datasets.Dataset`, ready for `llmlab.tune`.

        Raises:
            BadInputError: nothing was answered yet.
            LlmLabError: the `tune` extra isn't installed.
        """
        rows = self.rows()
        if not rows:
            raise BadInputError("No conversation has an answer yet.", "Ask with %%llm, or in llmlab.chat().")
        try:
            _imports.load("datasets")
            import datasets
        except ImportError as error:
            raise LlmLabError("A data set needs the package datasets.", "pip install 'llmlab[tune]'") from error
        return datasets.Dataset.from_list(rows)

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


def as_row(message: Message) -> dict[str, Any]:
    """A message for a table, whose columns hold values of one shape: text alone, tool calls' arguments as JSON."""
    return replace(message, images=()).as_openai()
