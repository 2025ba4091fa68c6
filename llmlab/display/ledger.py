"""The view of the memory ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmlab.render import units
from llmlab.render.safe import escape, plain
from llmlab.render.table import SI, Table, View

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.runlog import Correction, Ledger

SHOWN = 30
_SIZES = ("estimated", "loaded", "peak", "returned", "kept")


class LedgerView(View):
    """What loads were estimated to take, what they took, and what came back.

    Args:
        ledger: the ledger of a session.
        n: the newest loads to show.

    Attributes:
        frame: all its rows, in bytes, oldest first.
    """

    def __init__(self, ledger: Ledger, n: int = SHOWN) -> None:
        self.frame: pd.DataFrame = ledger.frame()
        self._n = n
        self._rows: list[Any] = self.frame.to_dict("records")
        pairs: list[tuple[str, str]] = sorted({(row["engine"], row["device"]) for row in self._rows})
        self._corrections = [(*pair, ledger.correction(*pair)) for pair in pairs]

    def _table(self) -> Table:
        rows = [
            (
                f"{row['at']:%m-%d %H:%M}", row["model"], row["engine"], row["quant"], row["device"],
                f"{row['context']:,}", *(_size(row[name]) for name in _SIZES),
            )
            for row in self._rows[-self._n :]
        ]  # fmt: skip
        headings = (
            *("loaded (UTC)", "model", "engine", "quant", "on", "context>", "estimated>", "after load>", "peak>"),
            *("returned>", "kept>"),
        )
        note = (
            "After load, peak: more than before the load, in this process and its children; the peak of a process "
            "counts for all its models. Returned: freed by the unload. Kept: after it, above the state before the load "
            f"(libraries stay); only known of a model that was alone. {SI}"
        )
        return Table(headings, rows, note=note, empty="No load is in the ledger (LLMLAB_RUN_LOG may be off).")

    def _lines(self) -> list[str]:
        return [_words(engine, device, found) for engine, device, found in self._corrections]

    def text(self) -> str:
        """The loads, then what they say about estimates."""
        return "\n".join([self._table().text(), "", *(plain(line) for line in self._lines())])

    def html(self) -> str:
        """The loads, then what they say about estimates."""
        return self._table().html() + "".join(f"<div>{escape(line)}</div>" for line in self._lines())


def _size(value: Any) -> str:
    return "" if value is None or value != value else units.size(int(value))


def _words(engine: str, device: str, found: Correction | None) -> str:
    start = f"{engine} on {device}, on this machine"
    if found is None:
        return f"{start}: estimates are as computed (corrected from three loads of 1 GB or more)."
    took = f"{start}: the {found.n} newest loads of 1 GB or more took {found.ratio:.0%} of their estimate (median)"
    if found.factor > 1:
        return f"{took}; estimates are raised by {found.factor - 1:.0%}."
    return f"{took}; estimates stay as computed, because a KV cache may not have been full."
