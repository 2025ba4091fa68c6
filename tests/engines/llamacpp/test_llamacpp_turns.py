"""Several llama.cpp models in one process share the cores; threads follow the machine's load."""

import time

import pytest

from tests.engines.driver import submit
from tests.engines.llamacpp.test_llamacpp_life import threads, threads_back_to


def test_an_idle_model_keeps_no_threads(load):
    load().close()
    before = threads()
    one = load(n_threads=2)
    try:
        assert threads_back_to(before + 1)  # after the warm-up step
        submit(one, "Tell me about the moon.").done()
        assert threads_back_to(before + 1)
    finally:
        one.close()


def test_two_models_with_all_cores_at_once(load):
    one, two = load(n_threads=2), load(n_threads=2)
    try:
        alone = submit(one, "Tell me about the moon.", max_tokens=10).done().token_ids
        pairs = [[submit(engine, "Tell me about the moon.", max_tokens=10) for engine in (one, two)] for _ in range(3)]
        assert all(sent.done().token_ids == alone for pair in pairs for sent in pair)
        # Unloaded while the other decodes, and the other way round.
        running = submit(two, "Story.", ignore_eos=True, max_tokens=60)
        running.wait_tokens(3)
        one.close()
        assert submit(two, "Tell me about the moon.", max_tokens=10).done().token_ids == alone
        two.close()
        assert running.done().finish_reason in ("interrupted", "length")
    finally:
        one.close()
        two.close()


def test_a_request_is_cancelled_while_another_model_computes(load):
    one, two = load(n_threads=2), load(n_threads=2)
    try:
        with one._loop._turn._changed:  # hold the CPU: no step of `two` can start
            shared = one._loop._turn._turns
        mine = shared.join(shared._count)
        mine.take()
        try:
            waiting = submit(two, "Story.", ignore_eos=True, max_tokens=500)
            time.sleep(0.05)
            two.cancel(waiting.request)
            assert waiting.done().finish_reason == "interrupted"
            closing = submit(two, "Story.", ignore_eos=True, max_tokens=500)
            two.close()
            assert closing.done().finish_reason == "interrupted"
        finally:
            mine.give()
        assert submit(one, "Tell me about the moon.").done().token_ids
    finally:
        one.close()
        two.close()


@pytest.fixture
def engine_of_two(load):
    own = load(n_threads=2)
    yield own
    own.close()


def test_threads_change_between_steps(engine_of_two):
    engine = engine_of_two
    expected = submit(engine, "Tell me about the moon.", max_tokens=20).done().token_ids
    sent = submit(engine, "Tell me about the moon.", max_tokens=20)
    for now in (1, 2) * 10:
        engine._loop.threads.now = now
        time.sleep(0.001)
    assert sent.done().token_ids == expected
    engine._loop.threads.now = 1
    assert engine.describe()["threads"].startswith("1")
