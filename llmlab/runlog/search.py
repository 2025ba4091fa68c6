"""Search in stored conversations by the words in their turns."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from llmlab.runlog.rows import Kept, kept, like

SNIPPET = 120
"""Characters of the text around the first match."""
MOST_WORDS = 20


@dataclass(frozen=True)
class Found:
    """A conversation that contains all words of a query.

    Attributes:
        kept: the conversation, without its turns.
        turns: the number of its turns, versions included.
        snippet: the text around the first match.
    """

    kept: Kept
    turns: int
    snippet: str


def find(db: sqlite3.Connection, query: str, n: int, kind: str | None) -> list[Found]:
    """Conversations that contain each word of a query in a turn, the title or the system prompt; newest first.

    Args:
        db: the run log.
        query: words; case matters only outside ASCII. Empty: all conversations.
        n: most conversations.
        kind: cell, chat or arena; None: all.
    """
    words = query.split()[:MOST_WORDS]
    wheres, values = (["kind = ?"], [kind]) if kind else (["1"], [])
    for word in words:
        pattern = f"%{like(word)}%"
        wheres.append(
            "(title like ? escape '\\' or system like ? escape '\\' or id in "
            "(select conversation from turns where json_extract(body, '$.text') like ? escape '\\') or id in "
            "(select conversation from runs where prompt like ? escape '\\' or text like ? escape '\\'))"
        )
        values += [pattern] * 5
    select = "select *, (select count(*) from turns where conversation = conversations.id) as turns from conversations "
    where = f"where {' and '.join(wheres)} order by updated desc, rowid desc limit ?"
    rows = db.execute(select + where, [*values, n]).fetchall()
    return [Found(kept(row), row["turns"], _snippet(db, row["id"], words)) for row in rows]


def _snippet(db: sqlite3.Connection, conversation: str, words: list[str]) -> str:
    """The text around the first word's first match in the turns; "" if it isn't in them."""
    if not words:
        return ""
    query = (
        "select body from turns where conversation = ? and json_extract(body, '$.text') like ? escape '\\' "
        "order by place"
    )
    row = db.execute(query, [conversation, f"%{like(words[0])}%"]).fetchone()
    if row is None:
        return ""
    text = " ".join(str(json.loads(row["body"])["text"]).split())
    at = max(text.casefold().find(words[0].casefold()), 0)
    start = max(at - SNIPPET // 3, 0)
    piece = text[start : start + SNIPPET]
    return f"{'…' if start else ''}{piece}{'…' if start + SNIPPET < len(text) else ''}"
