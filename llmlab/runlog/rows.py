"""Converts completions to rows of the run log and back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from llmlab._version import __version__
from llmlab.errors import BadInputError
from llmlab.runlog.redact import environment_secrets, redacted
from llmlab.types import Completion, Message, SamplingParams, image_of

TITLE_LENGTH = 80
# Params that have these values are left out of the log.
_PLAIN = asdict(SamplingParams())


@dataclass(frozen=True)
class Kept:
    """A stored conversation.

    Attributes:
        id: its id in the log.
        kind: cell, chat or arena.
        updated: time of the last entry (ISO, UTC).
        title: its first prompt, shortened.
        system: the system prompt.
        settings: model, adapter, sampling, schema and think of a chat.
        leaf: the last turn shown.
        turns: all turns of a chat, including versions.
    """

    id: str
    kind: str
    updated: str
    title: str
    system: str = ""
    settings: Mapping[str, Any] | None = None
    leaf: str = ""
    turns: tuple[dict[str, Any], ...] = ()


UNKEPT = "sha256:"
"""What an image's hash begins with, which is stored in place of its pixels."""


def keeps_images() -> bool:
    """Whether images themselves are stored, and not only their hashes: LLMLAB_RUN_LOG=images."""
    return os.environ.get("LLMLAB_RUN_LOG", "").strip().lower() == "images"


class Cleaner:
    """Redacts secrets from everything written, and writes each message once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._secrets = environment_secrets()

    def text(self, text: str) -> str:
        """A text without secrets and without lone surrogates, which can't be encoded; an image's hash for an image."""
        if text.startswith("data:image/"):
            with contextlib.suppress(BadInputError):  # any text may begin so
                image = image_of(text)
                return text if keeps_images() else UNKEPT + hashlib.sha256(image).hexdigest()
        return redacted(text.encode("utf-8", "replace").decode(), self._secrets)

    def json(self, value: Any) -> str:
        """A value as JSON, with secrets redacted in all of its texts."""
        return as_json(self._walk(value))

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._walk(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._walk(one) for one in value]
        return value

    def messages(self, messages: Iterable[Message]) -> list[str]:
        """Write the messages that aren't stored yet. Returns the hashes of all of them."""
        bodies = [self.json(message.as_dict()) for message in messages]
        rows = [{"hash": hashlib.sha256(body.encode()).hexdigest()[:32], "body": body} for body in bodies]
        self._db.executemany("insert or ignore into messages (hash, body) values (:hash, :body)", rows)
        return [row["hash"] for row in rows]


def run_row(completion: Completion, source: str, conversation: str, at: str, clean: Cleaner) -> dict[str, Any]:
    """A completion as a row of `runs`."""
    prompt = next((m.content for m in reversed(completion.messages) if m.role == "user"), completion.prompt)
    texts = [clean.text(choice.text) for choice in completion.choices]
    usage, timings = completion.usage, completion.timings
    return {
        "conversation": conversation,
        "source": source,
        "at": at,
        "model": completion.model,
        "engine": completion.engine,
        "quant": completion.quant,
        "adapter": completion.adapter or "",
        "prompt": clean.text(prompt),
        "text": texts[0],
        "texts": as_json(texts) if len(texts) > 1 else "",
        "reasoning": clean.text(completion.reasoning),
        "reasoning_tokens": completion.reasoning_tokens,
        "finish_reason": completion.finish_reason,
        "params": clean.json({k: v for k, v in asdict(completion.params).items() if v != _PLAIN[k]}),
        "messages": as_json(clean.messages(completion.messages)),
        "turns": as_json(clean.messages(completion.turns)),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        # Times of a replay were measured elsewhere, and are in the log of the recording.
        "ttft_s": timings.ttft_s if not timings.replayed else None,
        "total_s": timings.total_s if not timings.replayed else None,
        "tokens_per_s": timings.tokens_per_s if not timings.replayed else None,
        "llmlab": __version__,
    }


def touch(db: sqlite3.Connection, conversation: str, kind: str, at: str, prompt: str, system: str) -> None:
    """Create a conversation's row, or update its time."""
    title = " ".join(prompt.split())[:TITLE_LENGTH]
    db.execute(
        "insert into conversations (id, kind, started, updated, title, system, settings, leaf) "
        "values (?, ?, ?, ?, ?, ?, '{}', '') on conflict (id) do update set updated = excluded.updated, "
        "title = case when title = '' then excluded.title else title end",
        [conversation, kind, at, at, title, system],
    )


def system_of(completion: Completion) -> str:
    """The system prompt of a completion."""
    return next((m.content for m in completion.messages if m.role == "system"), "")


def kept(row: Mapping[str, Any]) -> Kept:
    """A row of `conversations`."""
    settings = json.loads(row["settings"] or "{}")
    return Kept(row["id"], row["kind"], row["updated"], row["title"], row["system"] or "", settings, row["leaf"] or "")


def bodies_of(db: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The messages that rows refer to, by hash."""
    wanted = list({key for row in rows for part in ("messages", "turns") for key in json.loads(row[part] or "[]")})
    out: dict[str, Any] = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        places = ",".join("?" * len(part))
        for row in db.execute(f"select hash, body from messages where hash in ({places})", part):  # noqa: S608
            out[row["hash"]] = json.loads(row["body"])
    return out


def read_row(row: Mapping[str, Any], bodies: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `runs` with its JSON parsed and its hashes resolved."""
    parts = {part: [bodies[k] for k in json.loads(row[part] or "[]") if k in bodies] for part in ("messages", "turns")}
    texts = json.loads(row["texts"]) if row["texts"] else [row["text"]]
    thought = {"reasoning": row["reasoning"] or "", "reasoning_tokens": row["reasoning_tokens"] or 0}
    return {**row, **parts, **thought, "params": json.loads(row["params"] or "{}"), "texts": texts}


def readable(message: Mapping[str, Any]) -> dict[str, Any]:
    """A stored message for a prompt: an image that wasn't kept is a text that says so."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    return {**message, "content": [_shown(part) for part in content]}


def _shown(part: Any) -> Any:
    url = (part.get("image_url") or {}).get("url", "") if isinstance(part, Mapping) else ""
    if not url.startswith(UNKEPT):
        return part
    return {"type": "text", "text": f"[an image that the run log hasn't kept, {url[: len(UNKEPT) + 8]}]"}


def like(text: str) -> str:
    """Escape a text for a LIKE pattern with backslash as the escape character."""
    return "".join(f"\\{c}" if c in "\\%_" else c for c in text)


def as_json(value: Any) -> str:
    """JSON without ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, default=str)


def now() -> str:
    """The current time in the stored format."""
    return datetime.now(UTC).isoformat()
