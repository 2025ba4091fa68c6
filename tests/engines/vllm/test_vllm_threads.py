"""The number of threads follows the load of the machine, as in llama.cpp."""

import pytest

from llmlab.engines.threads import Threads
from tests.engines.driver import submit
from tests.engines.test_threads import Load


@pytest.fixture
def engine(load):
    own = load()
    yield own
    own.close()


def test_fewer_threads_while_others_take_the_cores(engine):
    """Two that share their cores with other processes: SmolLM2 1 to 6 tokens/s, with one thread 10 to 28."""
    import torch

    def answer():
        return submit(engine, "Tell me about the moon.", max_tokens=20).done().token_ids

    expected, others, loop = answer(), Load(2.0), engine._loop
    used, real = [], loop._set_threads
    loop._set_threads = lambda: (real(), used.append(torch.get_num_threads()))
    loop.threads = Threads(2, fixed=False, load=others, count=2)
    loop._used_threads = 2
    assert answer() == expected
    assert engine.describe()["threads"] == "1 of 2, because other processes take 2.0 of 2 cores, not bound"
    others.taken = 0.0
    assert answer() == expected
    # A thread of another test's process may make two slower, and it goes back to one.
    assert used[:2] == [1, 2]


def test_the_users_number_stays(load):
    engine = load(threads=2)
    try:
        engine._loop.threads.begin()
        assert engine.describe()["threads"] == "2, not bound"
    finally:
        engine.close()
