"""Stored conversations as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab import _imports
from llmlab.render.table import Table, View
from llmlab.runlog.search import Found

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "updated", "kind", "title", "model", "turns", "match")


class ChatsView(View):
    """Conversations in the run log, newest first. `frame` is the DataFrame.

    Args:
        found: the conversations.
        query: the words that were looked for.
    """

    def __init__(self, found: Sequence[Found], query: str = "") -> None:
        self.frame = as_frame(found)
        self._query = query

    def _table(self) -> Table:
        rows = [
            (
                one["id"],
                f"{one['updated']:%Y-%m-%d %H:%M}",
                one["title"],
                one["model"] or "-",
                str(one["turns"]),
                one["match"],
            )
            for one in self.frame.to_dict("records")
        ]
        empty = f"No chat in the run log contains {self._query!r}." if self._query else "The run log has no chat."
        headings = ("id", "last used", "began with", "model", "turns>", "match")
        return Table(headings, rows, note="Times in UTC. Continue one: %llm chat --resume ID", empty=empty)

    def text(self) -> str:
        """An aligned table."""
        return self._table().text()

    def html(self) -> str:
        """An HTML table."""
        return self._table().html()


def as_frame(found: Sequence[Found]) -> pd.DataFrame:
    """Conversations as a DataFrame."""
    _imports.load("pandas")
    import pandas as pd

    rows = []
    for one in found:
        kept, model = one.kept, (one.kept.settings or {}).get("model") or ""
        rows.append((kept.id, kept.updated, kept.kind, kept.title, model, one.turns, one.snippet))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["updated"] = pd.to_datetime(table["updated"], utc=True, format="ISO8601")
    return table
