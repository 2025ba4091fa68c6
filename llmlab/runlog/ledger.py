"""The memory ledger: what each load was estimated to take, what it took, and what came back when it was unloaded."""

from __future__ import annotations

import statistics
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import LlmLabError
from llmlab.machine import footprint
from llmlab.runlog.log import RunLog
from llmlab.runlog.rows import now

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("at", "session", "model", "engine", "quant", "device", "context", "concurrency", "estimated", "loaded", "peak"),
    *("returned", "kept"),
)
# Loads below this say more about the process than about the model.
_LEAST = 10**9
# An estimate is corrected from this many loads on the same kind of machine, by at most this factor.
_NEEDED, _LATEST, _MOST = 3, 20, 2.0


@dataclass(frozen=True, slots=True)
class Correction:
    """What earlier loads say about an engine's estimates on this machine.

    Attributes:
        ratio: the median of measured peak / estimate.
        n: the number of loads.
    """

    ratio: float
    n: int

    @property
    def factor(self) -> float:
        """What an estimate is multiplied by. Never below 1: a KV cache that wasn't full proves nothing."""
        return min(max(self.ratio, 1.0), _MOST)


@dataclass
class _Open:
    """A load that is in memory: its key, bytes before it, its peak so far, and whether others came or went."""

    key: str
    on_gpu: bool
    before: int
    peak: int
    alone: bool = True


class Ledger:
    """Measures loads and unloads, and keeps them in the run log.

    Args:
        log: the run log.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._session = uuid.uuid4().hex[:8]
        self._open: dict[int, _Open] = {}
        self._lock = threading.Lock()

    def start(self) -> tuple[int, int]:
        """Note the memory before a load: bytes in RAM, and on GPUs."""
        with self._lock:
            self._note_peak()
            footprint.restart_peak()
        return footprint.held(), footprint.held_on_gpu()

    def loaded(self, holder: int, before: tuple[int, int], facts: Mapping[str, Any]) -> None:
        """Note a load.

        Args:
            holder: identifies the loaded model.
            before: what `start` returned.
            facts: its model, engine, quant, device, context, concurrency and estimated bytes.
        """
        on_gpu = facts["device"] != "CPU"
        now_held = footprint.held_on_gpu() if on_gpu else footprint.held()
        if on_gpu and not now_held:
            return  # the driver doesn't report it
        with self._lock:
            for other in self._open.values():
                other.alone = False
            alone = not self._open
            peak = max(now_held, 0 if on_gpu else footprint.peak())
            entry = _Open(uuid.uuid4().hex, on_gpu, before[on_gpu], peak, alone)
            self._open[holder] = entry
        row = dict(facts) | {
            "key": entry.key, "session": self._session, "at": now(), "machine": footprint.machine_id(),
            "loaded": max(now_held - entry.before, 0), "peak": max(peak - entry.before, 0),
        }  # fmt: skip
        self._log.add_load(row)

    def unloading(self, holder: int) -> int:
        """Note the memory before an unload; pass the result to `unloaded`."""
        with self._lock:
            self._note_peak()
            entry = self._open.get(holder)
        return 0 if entry is None else footprint.held_on_gpu() if entry.on_gpu else footprint.held()

    def unloaded(self, holder: int, held: int) -> None:
        """Note an unload: what came back, and what the process holds more than before the load.

        What is kept is only known of a model that was alone in the process; else it is left out.
        """
        with self._lock:
            entry = self._open.pop(holder, None)
            if entry is None:
                return
            for other in self._open.values():
                other.alone = False
        left = footprint.held_on_gpu() if entry.on_gpu else footprint.held()
        self._log.end_load(
            entry.key,
            peak=max(entry.peak - entry.before, 0),
            returned=max(held - left, 0),
            kept=max(left - entry.before, 0) if entry.alone else None,
        )

    def _note_peak(self) -> None:
        peak = footprint.peak()
        for entry in self._open.values():
            if not entry.on_gpu:
                entry.peak = max(entry.peak, peak)

    def correction(self, engine: str, device: str) -> Correction | None:
        """What earlier loads on this kind of machine say; None if there are too few, or the run log can't be read.

        Args:
            engine: the engine.
            device: "CPU", or a GPU's name.
        """
        try:
            rows = self._log.loads(machine=footprint.machine_id())
        except LlmLabError:  # the write of this load warns about it
            return None
        found = [
            row["peak"] / row["estimated"]
            for row in rows
            if row["engine"] == engine and row["device"] == device and row["estimated"] >= _LEAST
        ][:_LATEST]
        return Correction(statistics.median(found), len(found)) if len(found) >= _NEEDED else None

    def frame(self, n: int | None = None) -> pd.DataFrame:
        """The loads, oldest first: bytes estimated, loaded, at the peak, returned by the unload and kept after it.

        Args:
            n: only the newest n.
        """
        _imports.load("pandas")
        import pandas as pd

        table = pd.DataFrame(self._log.loads(n=n)[::-1], columns=list(COLUMNS))
        table["at"] = pd.to_datetime(table["at"], utc=True, format="ISO8601")
        for name in ("returned", "kept"):  # missing until the unload
            table[name] = pd.to_numeric(table[name]).astype("float64")
        return table
