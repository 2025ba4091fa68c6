"""Runs a job's rows on its workers: a bounded number at once, tried again, handed back, and written in order."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlab.errors import BadInputError, GenerationError, LlmLabError, UnloadedError
from llmlab.jobs.rows import Row
from llmlab.jobs.shards import Writer
from llmlab.jobs.workers import Outcome, Speed, Task, Worker, failed_record
from llmlab.render import units
from llmlab.types.progress import Progress

POLL_S = 0.5
PATIENCE_S = 30.0
"""How long a job without a worker waits for one to come back."""
AGAIN_S = 3.0
"""Seconds between two tries to reach a lost worker."""
_SUSPECT = 2
_MOST_DEATHS = 3
_FAILURES_IN_A_ROW = 20
_JOB_SPEED_OVER = 2000
_SAY_S = 0.1


class StopError(BadInputError):
    """Ends the job: no fault of one row."""


@dataclass(slots=True)
class _Open:
    """A row that isn't finished.

    Attributes:
        attempts: how often it failed; deaths: how many workers were lost while they had it.
    """

    row: Row
    task: Task
    attempts: int = 0
    deaths: int = 0


@dataclass
class _State:
    """A worker with the rows that it has."""

    worker: Worker
    running: set[int] = field(default_factory=set)
    speed: Speed = field(default_factory=Speed)
    done: int = 0
    failures: int = 0
    alone: bool = False
    lost: str = ""
    retry_at: float = 0.0

    @property
    def free(self) -> bool:
        return not self.lost and not self.alone and len(self.running) < self.worker.limit


@dataclass
class Run:
    """One run of a job.

    Args:
        rows: the rows that have no answer yet.
        task: makes a row's request; raises `LlmLabError` for a row that can't be one.
        record: (row, answer) -> the row of the result.
        workers: what answers.
        writer: where finished rows go.
        total: the number of all rows, if known.
        retries: how often a failed row is tried again.
        progress: called with the state in words, and the fraction.
    """

    rows: Iterator[Row]
    task: Callable[[Row], Task]
    record: Callable[[Row, Mapping[str, Any]], Mapping[str, Any]]
    workers: Sequence[Worker]
    writer: Writer
    total: int | None
    retries: int
    progress: Progress

    def __post_init__(self) -> None:
        self._states = [_State(worker) for worker in self.workers]
        self._by_worker = {id(state.worker): state for state in self._states}
        self._open: dict[int, _Open] = {}
        self._waiting: deque[int] = deque()
        self._events: queue.SimpleQueue[tuple[Worker, int]] = queue.SimpleQueue()
        self._exhausted = False
        # Rows that are read and not written yet: what runs, and as much again so that a slow row doesn't stop the rest.
        self._window = 2 * sum(worker.limit for worker in self.workers) + self.writer.rows
        self._read = self.writer.next
        self._speed = Speed(_JOB_SPEED_OVER)
        self._said = 0.0
        self._alone_since = 0.0
        self.counts: dict[str, int] = {}

    def everything(self) -> None:
        """Answer all rows.

        Raises:
            GenerationError: no worker is left; what was answered is kept.
            KeyboardInterrupt: what was answered is kept.
        """
        try:
            while True:
                self._revive()
                self._fill()
                if not self._open and self._exhausted:
                    return
                self._take()
                self.writer.tick()
        finally:
            for state in self._states:
                state.worker.drop()
            self.counts = {state.worker.name: state.done for state in self._states}
            self.writer.flush()

    # -- starting rows -------------------------------------------------------------------------

    def _fill(self) -> None:
        while any(state.free for state in self._states):
            index = self._next()
            if index is None:
                return
            state = self._pick(alone=self._open[index].deaths >= _SUSPECT)
            if state is None:
                self._waiting.appendleft(index)
                return
            self._start(state, self._open[index])

    def _next(self) -> int | None:
        """The next row to start; None if there is none now."""
        if self._waiting:
            return self._waiting.popleft()
        while not self._exhausted and self._read - self.writer.next < self._window:
            row = next(self.rows, None)
            if row is None:
                self._exhausted = True
                return None
            self._read = row.index + 1
            try:
                if row.error:
                    raise LlmLabError(row.error)
                self._open[row.index] = _Open(row, self.task(row))
            except StopError:
                raise
            except LlmLabError as error:
                self.put(row, failed_record(str(error)))
                continue
            return row.index
        return None

    def _pick(self, *, alone: bool) -> _State | None:
        """The worker that will probably end a further row first; None: it is better to wait."""
        if alone:
            return next((state for state in self._states if state.free and not state.running), None)
        known = [state.speed.rate for state in self._states if state.speed.rate is not None]
        guess = max(known, default=1.0)

        def wait(state: _State) -> float:
            return (len(state.running) + 1) / (state.speed.rate or guess)

        free = [state for state in self._states if state.free]
        if not free:
            return None
        best = min(free, key=wait)
        # The last rows wait for a fast worker rather than keep the job waiting for a slow one.
        up = [state for state in self._states if not state.lost and not state.alone]
        if self._exhausted and best.running and best is not min(up, key=wait):
            return None
        return best

    def _start(self, state: _State, one: _Open) -> None:
        state.alone = one.deaths >= _SUSPECT
        if not state.running:
            state.speed.idle()
        state.running.add(one.row.index)
        try:
            state.worker.start(one.task, lambda worker, index: self._events.put((worker, index)))
        except UnloadedError as error:
            self._lose(state, str(error))
        except LlmLabError as error:
            self._end(state, one.row.index, Outcome("row", error=str(error)))

    # -- ending rows ---------------------------------------------------------------------------

    def _take(self) -> None:
        """Wait for something to happen, and handle all that has."""
        if not any(state.running for state in self._states):
            if self._open:
                time.sleep(POLL_S / 5)  # no worker is there: `_revive` waits for one
            return
        try:
            event = self._events.get(timeout=POLL_S)
        except queue.Empty:
            self._say()
            return
        while True:
            worker, index = event
            state = self._by_worker[id(worker)]
            if index in state.running:  # a worker that was lost may still report
                self._end(state, index, worker.finish(index))
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
        self._say()

    def _end(self, state: _State, index: int, found: Outcome) -> None:
        if found.kind == "gone":
            return self._lose(state, found.error)
        one = self._open[index]
        state.running.discard(index)
        state.alone = False
        if found.kind == "again":
            one.attempts += 1
            state.failures += 1
            if state.failures >= _FAILURES_IN_A_ROW or not state.worker.alive():
                one.attempts -= 1
                self._waiting.append(index)
                return self._lose(state, found.error)
            if one.attempts <= self.retries:
                self._waiting.append(index)
                return None
        state.failures = state.failures if found.kind == "again" else 0
        state.done += 1
        state.speed.count()
        del self._open[index]
        self.put(one.row, found.record if found.kind == "done" else failed_record(found.error))
        return None

    def put(self, row: Row, answer: Mapping[str, Any]) -> None:
        """Finish a row."""
        self._speed.count()
        self.writer.put(row.index, self.record(row, answer), row.digest)

    # -- lost workers --------------------------------------------------------------------------

    def _lose(self, state: _State, why: str) -> None:
        """A worker is gone: its rows go to the others."""
        state.worker.drop()
        state.lost = why or "it ended"
        state.retry_at = time.monotonic() + AGAIN_S
        state.alone, state.failures = False, 0
        back, state.running = sorted(state.running), set()
        for index in back:
            one = self._open[index]
            one.deaths += 1
            if one.deaths >= _MOST_DEATHS and len(back) == 1:
                del self._open[index]
                reason = f"The worker was lost {one.deaths} times while it had this row; the last time: {state.lost}"
                self.put(one.row, failed_record(reason))
        self._waiting.extendleft(index for index in reversed(back) if index in self._open)

    def _revive(self) -> None:
        """Try to get lost workers back.

        Raises:
            GenerationError: there has been none for `PATIENCE_S` seconds.
        """
        lost = [state for state in self._states if state.lost]
        if not lost:
            self._alone_since = 0.0
            return
        now = time.monotonic()
        for state in lost:
            if now >= state.retry_at:
                state.retry_at = now + AGAIN_S
                if state.worker.revive():
                    state.lost = ""
        if len(lost) == len(self._states) and all(state.lost for state in lost):
            self._alone_since = self._alone_since or now
            if now - self._alone_since > PATIENCE_S:
                raise GenerationError(f"No worker is left. {lost[0].worker.name}: {lost[0].lost}")
        else:
            self._alone_since = 0.0

    # -- progress ------------------------------------------------------------------------------

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_S:
            return
        self._said = now
        done = self.writer.finished
        rate = self._speed.rate
        parts = [f"{done:,} of {units.count(self.total, 'row')}" if self.total else units.count(done, "row")]
        if rate is not None:
            parts.append(f"{units.three(rate)} rows/s")
            if self.total and done < self.total:
                parts.append(f"{units.seconds((self.total - done) / rate)} left")
        if self.writer.failed:
            parts.append(f"{self.writer.failed:,} failed")
        lost = sum(bool(state.lost) for state in self._states)
        if lost:
            parts.append(f"{lost} of {len(self._states)} workers lost")
        self.progress(", ".join(parts), min(done / self.total, 1.0) if self.total else None)
