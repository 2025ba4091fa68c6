"""Threads that compute in turns."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from llmlab.machine import turns
from llmlab.machine.turns import Turns


@pytest.fixture(autouse=True)
def no_turn_stays(monkeypatch):
    """The tests take turns on the main thread, which afterwards waits for models that it closes."""
    monkeypatch.setattr(turns, "_member", threading.local())


class Worker:
    """A thread that takes `steps` steps of a given length, as a decoding loop does."""

    def __init__(self, on, threads, steps, step_s, log, compute):
        self.turn = on.join(threads)
        self.thread = threading.Thread(target=self._run, args=(steps, step_s, log, compute), daemon=True)
        self.thread.start()

    def _run(self, steps, step_s, log, compute):
        for _ in range(steps):
            while not self.turn.take(0.01):
                pass
            log.append((self, len(self.turn._turns.running)))
            compute(step_s)
            self.turn.offer()
        self.turn.give()


def run(on, *plans, compute=time.sleep):
    """Run workers, which all wait before the first one starts."""
    log = []
    mine = on.join(on._count)
    mine.take()
    workers = [Worker(on, *plan, log, compute) for plan in plans]
    while len(on.waiting) < len(workers):
        time.sleep(0.001)
    mine.give()
    for one in workers:
        one.thread.join(60)
        assert not one.thread.is_alive()
    assert not on.running
    assert not on.waiting
    return workers, log


def test_one_at_a_time_and_evenly(monkeypatch):
    now = 0.0

    def compute(step_s):  # on a busy machine a step takes as long as a slice
        nonlocal now
        now += step_s

    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: now))
    (a, b), log = run(Turns(2), (2, 150, 0.002), (2, 150, 0.002), compute=compute)
    assert {running for _, running in log} == {1}
    half = [one for one, _ in log[:200]]
    assert half.count(a) > 50
    assert half.count(b) > 50
    switches = sum(one is not other for (one, _), (other, _) in itertools.pairwise(log))
    assert switches < 60  # in slices, not step by step


def test_as_many_as_there_are_cores():
    _, log = run(Turns(2), (1, 50, 0.002), (1, 50, 0.002), (2, 30, 0.002))
    assert max(running for _, running in log) <= 2


def test_a_newcomer_does_not_make_up_for_its_absence():
    on = Turns(1)
    old = on.join(1)
    old.take()
    old.started -= 100
    new = on.join(1)
    assert not new.take(0)
    old.offer()
    assert not old.held
    assert new.take(0)
    assert not old.take(0)
    new.started -= 3 * turns.SLICE_S
    new.offer()
    assert old.take(0)
    old.give()
    new.give()
    again = on.join(1)
    assert again.take(0)
    assert not old.take(0)
    again.started -= 3 * turns.SLICE_S
    again.offer()
    assert old.held


def test_giving_up_a_place_in_the_queue():
    on = Turns(1)
    a, b = on.join(1), on.join(1)
    assert a.take(0)
    assert not b.take(0)
    assert a.contended
    b.give()
    assert not a.contended
    a.release()
    assert b.take(0)


def test_a_thread_that_does_not_compute_never_waits():
    on = Turns(1)
    assert on.join(1).take(0)
    gpu = on.join(0)
    assert gpu.take()
    gpu.offer()
    gpu.share()
    gpu.release()
    gpu.give()


def test_a_thread_that_has_left_is_none_that_takes_turns():
    """The main thread took a turn once; from then on it didn't wait for the threads of models that it closed."""
    turn = Turns(2).join(1)
    for leave in (turn.give, turn.release):
        turn.take()
        assert turns.on_member()
        leave()
        assert not turns.on_member()


def test_a_runtime_that_another_thread_finds_meanwhile(monkeypatch):
    """A cell that ended during a load failed: dictionary changed size during iteration."""
    found = {"first": lambda _: found.setdefault("second", lambda _: 0) is None}
    monkeypatch.setattr(turns, "_runtimes", found)
    turns.end_team()
    assert set(found) == {"first", "second"}
