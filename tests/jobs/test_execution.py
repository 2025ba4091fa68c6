"""How rows are shared between workers, with workers that are slow, that die, or that are killed by a row."""

import itertools
import threading
import time

import pytest

from llmlab.errors import GenerationError
from llmlab.jobs import execution
from llmlab.jobs.rows import Rows
from llmlab.jobs.shards import Output, Writer
from llmlab.jobs.workers import Outcome, Task


class Scripted:
    """A worker whose rows take `pace` seconds; `kills` are rows that end it, `dies_at` the number of rows after which
    it is gone for good."""

    def __init__(self, name, pace=0.001, *, limit=4, kills=(), dies_at=None):
        self.name, self.pace, self.limit, self.kills, self.dies_at = name, pace, limit, set(kills), dies_at
        self.started, self.alone, self.running, self.lives, self.gone = [], [], {}, 1, False

    def start(self, task, ready):
        self.started.append(task.index)
        self.running[task.index] = list(self.running)
        timer = threading.Timer(self.pace, ready, (self, task.index))
        timer.daemon = True
        timer.start()

    def finish(self, index):
        if set(self.running) & self.kills or self.gone or len(self.started) > (self.dies_at or 1e9):
            if len(self.running) == 1:
                self.alone.append(index)
            self.gone = self.dies_at is not None
            return Outcome("gone", error="killed")
        del self.running[index]
        return Outcome("done", {"text": str(index), "error": ""})

    def alive(self):
        return not self.gone

    def revive(self):
        self.lives += not self.gone
        return not self.gone

    def drop(self):
        self.running = {}

    def close(self):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "AGAIN_S", 0.0)

    def call(workers, count=60):
        output = Output(tmp_path)
        output.claim()
        writer = Writer(output, rows=10)
        one = execution.Run(
            Rows([{"n": i} for i in range(count)]),
            lambda row: Task(row.index, "x", {}),
            lambda row, answer: {"row": row.index, **answer},
            workers,
            writer,
            count,
            1,
            lambda *_: None,
        )
        one.everything()
        output.release()
        return one, list(output.rows())

    return call


def test_a_fast_worker_gets_more_rows(run):
    held, ended = [], 0  # the slow worker's rows, with the number of the fast one's that had ended before

    def release():
        over = len(fast.started) + len(slow.started) == 120
        for one in [one for one in held if over or ended - one[0] >= 16]:
            held.remove(one)
            one[1](slow, one[2])

    class Slow(Scripted):
        """Each of its rows takes as long as sixteen of the fast worker's."""

        def start(self, task, ready):
            self.started.append(task.index)
            self.running[task.index] = []
            held.append((ended, ready, task.index))
            release()

    class Fast(Scripted):
        def finish(self, index):
            nonlocal ended
            ended += 1
            release()
            return super().finish(index)

    fast, slow = Fast("fast"), Slow("slow")
    one, rows = run([fast, slow], 120)
    assert [row["row"] for row in rows] == list(range(120))
    assert one.counts["fast"] > 3 * one.counts["slow"] > 0


def test_a_worker_that_is_gone_hands_its_rows_to_the_others(run):
    dead, other = Scripted("dead", dies_at=9), Scripted("other")
    one, rows = run([dead, other])
    assert [row["text"] for row in rows] == [str(i) for i in range(60)]
    assert not any(row["error"] for row in rows)
    assert one.counts["other"] > one.counts["dead"]


def test_a_row_that_kills_its_worker_fails_alone(run):
    workers = [Scripted(name, kills={7}) for name in "ab"]
    _, rows = run(workers)
    assert [row["row"] for row in rows if row["error"]] == [7]
    assert "lost 3 times while it had this row" in rows[7]["error"]
    assert [index for worker in workers for index in worker.alone][-1] == 7  # it was given to a worker without others
    assert sum(worker.lives for worker in workers) >= 2 + 2


def test_without_a_worker_the_job_ends(run, monkeypatch, tmp_path):
    monkeypatch.setattr(execution, "PATIENCE_S", 0.0)
    with pytest.raises(GenerationError, match=r"No worker is left. one: killed"):
        run([Scripted("one", dies_at=30)])
    kept = [row["row"] for row in Output(tmp_path).rows()]
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 60


def test_a_worker_that_comes_back_is_used_again(run):
    class Back(Scripted):
        def revive(self):
            time.sleep(0.01)
            self.gone, self.dies_at = False, None
            return True

    worker = Back("one", dies_at=20)
    _, rows = run([worker])
    assert [row["row"] for row in rows] == list(range(60))
    repeated = [index for index, group in itertools.groupby(sorted(worker.started)) if len(list(group)) > 1]
    assert 0 < len(repeated) <= worker.limit
