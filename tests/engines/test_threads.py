"""The number of decoding threads follows the load of the machine."""

import pytest

from llmlab.engines import threads
from llmlab.engines.threads import Threads, best_count


class Load:
    """What other processes take, as a test says."""

    def __init__(self, taken=0.0):
        self.taken = taken

    def busy(self):
        return self.taken


class Clock:
    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    own = Clock()
    monkeypatch.setattr(threads, "time", own)
    return own


def decode(chosen, clock, seconds, total):
    """Steps of `seconds` (by the number of threads) until `total` seconds have passed."""
    end = clock.now + total
    while clock.now < end:
        took = seconds[chosen.now]
        clock.now += took
        chosen.step(took, 1)


@pytest.mark.parametrize(
    ("most", "free", "expected"),
    [(2, 2.0, 2), (2, 1.7, 2), (2, 1.4, 1), (2, 1.0, 1), (2, 0.0, 1), (8, 7.7, 7), (8, 4.0, 4), (1, 2.0, 1)],
)
def test_the_best_number(most, free, expected):
    assert best_count(most, free) == expected


def test_it_follows_the_load_down_and_up(clock):
    load = Load()
    chosen = Threads(2, fixed=False, load=load, count=2)
    chosen.begin()
    assert chosen.now == 2
    load.taken = 1.0
    decode(chosen, clock, {1: 0.02, 2: 0.3}, 1.0)
    assert chosen.now == 1
    assert chosen.describe() == "1 of 2, because other processes take 1.0 of 2 cores"
    load.taken = 0.0
    decode(chosen, clock, {1: 0.02, 2: 0.01}, 3.0)
    assert chosen.now == 2
    assert chosen.describe() == "2"


def test_the_pause_before_a_request_counts(clock):
    chosen = Threads(2, fixed=False, load=Load(2.0), count=2)
    chosen.begin()
    assert chosen.now == 1


def test_it_goes_back_when_more_threads_are_slower(clock):
    """The counters show free cores, but a thread of this process takes one."""
    chosen = Threads(2, fixed=False, load=Load(), count=2)
    chosen.begin()
    decode(chosen, clock, {1: 0.02, 2: 0.01}, 1.0)
    used = []
    seconds = {1: 0.02, 2: 0.2}
    for _ in range(300):
        used.append(chosen.now)
        clock.now += seconds[chosen.now]
        chosen.step(seconds[chosen.now], 1)
    assert used.count(2) < 30


def test_the_users_number_stays(clock):
    chosen = Threads(2, fixed=True, load=Load(2.0), count=2)
    chosen.begin()
    decode(chosen, clock, {1: 0.02, 2: 0.3}, 2.0)
    assert chosen.now == 2
