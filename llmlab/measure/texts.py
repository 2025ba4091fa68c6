"""The data that quants are compared on: texts, and questions with answers, in common formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.errors import BadInputError
from llmlab.types import Message

if TYPE_CHECKING:
    from llmlab.model import Model

FORMS = (
    'Pass a text, a list of texts, rows with "text", or rows with "prompt" and "completion" (or "question" and '
    '"answer", or "messages"): as a list of dicts, a DataFrame, a datasets.Dataset, a file, or a hub id.'
)
_PLAIN = (".txt", ".md")


@dataclass(frozen=True, slots=True)
class Item:
    """One text, or one question with its answer.

    Attributes:
        text: a plain text; "" for a question.
        messages: the conversation up to the model's turn.
        answer: the expected answer; "" if unknown.
        asked: whether a generated answer can be compared with it (not for a story).
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    answer: str = ""
    asked: bool = True

    def render(self, model: Model) -> str:
        """The item as the model receives it: a question through the chat template, with the answer."""
        if self.text:
            return self.text
        end = model.facts.special_tokens.get("eos_token", "")
        if model.facts.chat_template is None:
            return "\n".join([*(message.content for message in self.messages), self.answer])
        return f"{model.render(self.messages)}{self.answer}{end}"


@dataclass(frozen=True, slots=True)
class Texts:
    """The items. `digest`: a SHA-256 (hex) of all of them; `origin`: their source."""

    items: tuple[Item, ...]
    digest: str
    origin: str

    @property
    def questions(self) -> tuple[Item, ...]:
        """The items with a conversation to answer."""
        return tuple(item for item in self.items if item.messages and item.asked)


def read(data: Any = None) -> Texts:
    """Read the data to compare on.

    Args:
        data: see `FORMS`; None uses held-out stories and questions from nano's corpus.

    Raises:
        BadInputError: it is empty, or in an unknown format.
    """
    if data is None:
        return _of(_own_corpus(), "llmlab's held-out stories and questions")
    if isinstance(data, str | Path):
        text = str(data)
        path = Path(text).expanduser() if len(text) < 1024 and "\n" not in text else None
        if path is not None and path.is_file() and path.suffix.lower() in _PLAIN:
            return _of([Item(text=path.read_text(encoding="utf-8", errors="replace"))], str(path))
        if isinstance(data, str) and (not text.strip() or any(c.isspace() for c in text.strip())):
            return _of([Item(text=text)], "a text")
    if isinstance(data, Sequence) and not isinstance(data, str) and all(isinstance(one, str) for one in data):
        return _of([Item(text=one) for one in data], "a list of texts")
    if isinstance(data, Sequence) and not isinstance(data, str) and all(hasattr(one, "messages") for one in data):
        return _of([_example(one) for one in data], "a list of examples")
    # The shared reader of data sets; its errors name what it can't read.
    from llmlab.training import data as sets

    origin, splits = sets._open(data)  # noqa: SLF001 - the same formats, different columns
    main = next((name for name in ("test", "validation", "train", "") if name in splits), next(iter(splits), ""))
    return _of([_row(row, sets, number) for number, row in enumerate(splits.get(main, ()))], origin)


def _of(items: Sequence[Item], origin: str) -> Texts:
    kept = tuple(item for item in items if item.text.strip() or item.messages)
    if not kept:
        raise BadInputError(f"There is no data to measure on: {origin} is empty.", FORMS)
    content = [[item.text, [message.as_dict() for message in item.messages], item.answer] for item in kept]
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    return Texts(kept, digest, origin)


def _row(row: Any, sets: Any, number: int) -> Item:
    if isinstance(row, Mapping) and isinstance(row.get("text"), str):
        return Item(text=row["text"])
    if isinstance(row, Mapping) and "question" in row and "answer" in row:
        row = {**row, "prompt": row["question"], "completion": str(row["answer"])}
    try:
        messages = sets._row(row, number).messages  # noqa: SLF001
    except BadInputError as error:
        raise BadInputError(error.message, FORMS) from None
    if messages[-1].role == "assistant":
        return Item(messages=messages[:-1], answer=messages[-1].content)
    return Item(messages=messages)


def _example(one: Any) -> Item:
    return Item(messages=tuple(Message.of(turn) for turn in one.messages), answer=getattr(one, "answer", ""))


def _own_corpus() -> list[Item]:
    """Stories to score (most of their tokens are in the model's turn), then questions with a single answer."""
    from llmlab import zoo

    stories = [replace(_example(one), asked=False) for one in zoo.heldout("story", n=48, seed=1)]
    return stories + [
        _example(one) for skill in ("facts", "extract", "sentiment") for one in zoo.heldout(skill, n=24, seed=1)
    ]
