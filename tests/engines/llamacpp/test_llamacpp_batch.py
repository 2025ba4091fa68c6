"""Concurrent requests: waiting, cancelling, prompts during decoding, reuse of the KV cache."""

import contextlib
import threading
import time

import pytest

from llmlab.engines.llamacpp.batch import Batch
from llmlab.errors import GenerationError
from tests.engines.driver import WAIT_S, submit

LONG = {"ignore_eos": True, "max_tokens": 900}


def long_prompt(engine, tokens, salt=0):
    """Token ids of a long prompt; different salts differ from the first token on."""
    return [200 + (i * 7 + salt * 131) % 1500 for i in range(tokens)]


def wait_for(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.001)


@contextlib.contextmanager
def each_step(engine, do):
    """Call `do` on the loop's thread before each step, from now on; the first one waits for what the block submits."""
    submitted, context = threading.Event(), engine._loop._context
    real = context._decode

    def decode(*given):
        assert submitted.wait(WAIT_S)
        do()
        return real(*given)

    context._decode = decode
    try:
        yield
    finally:
        submitted.set()


def test_more_requests_than_slots_wait_in_order(engine):
    sent = [submit(engine, f"Count to {i}.", ignore_eos=True, max_tokens=30) for i in range(11)]
    wait_for(lambda: len(engine._loop._waiting) > 0 or sent[-1].buffer.done)
    assert len(engine._loop._running) <= 4
    choices = [one.done() for one in sent]
    assert all(len(choice.token_ids) == 30 for choice in choices)
    firsts = [one.buffer._slots[0].first for one in sent]
    # Four run at once, so a request can only overtake those of its own round.
    assert all(firsts[i] < firsts[i + 4] for i in range(len(firsts) - 4))


def test_cancel_while_decoding(engine):
    sent, other = submit(engine, "A story.", **LONG), submit(engine, "Another story.", ignore_eos=True, max_tokens=60)
    sent.wait_tokens(5)
    engine.cancel(sent.request)
    choice = sent.done()
    assert choice.finish_reason == "interrupted"
    assert 5 <= len(choice.token_ids) < 900
    assert choice.text == engine.detokenize(list(choice.token_ids))
    assert len(other.done().token_ids) == 60
    engine.cancel(sent.request)  # a no-op
    assert submit(engine, "A story.").done().token_ids


def test_cancel_while_waiting(engine):
    running = [submit(engine, f"Story {i}.", **LONG) for i in range(4)]
    waiting = submit(engine, "Late.", **LONG)
    engine.cancel(waiting.request)
    choice = waiting.done()
    assert (choice.finish_reason, choice.token_ids) == ("interrupted", ())
    for one in running:
        engine.cancel(one.request)
    assert {one.done().finish_reason for one in running} <= {"interrupted", "length"}
    assert not engine._loop._by_request


def test_cancel_in_a_prompt(load):
    engine = load(ctx=2048, n_batch=16, prefix_cache=False)
    try:
        steps, sent = [], None

        def cancel():
            steps.append(1)
            if len(steps) == 50:
                engine.cancel(sent.request)

        with each_step(engine, cancel):
            sent = submit(engine, long_prompt(engine, 2000))
        choice = sent.done()
        assert 50 <= len(steps) < 60  # of 125
        assert (choice.finish_reason, choice.token_ids) == ("interrupted", ())
        assert submit(engine, "hello").done().token_ids
    finally:
        engine.close()


def test_an_aborted_step_changes_nothing_for_the_others(load, monkeypatch):
    engine = load(ctx=2048, n_batch=2048, n_ubatch=64, prompt_chunk=2048)
    try:
        alone = submit(engine, "Tell me about the moon.", ignore_eos=True, max_tokens=80).done()
        loop, aborted = engine._loop, []
        resync = Batch.resync
        monkeypatch.setattr(Batch, "resync", lambda batch: (aborted.append(1), resync(batch)))
        for salt in range(1, 8):
            beside = submit(engine, "Tell me about the moon.", ignore_eos=True, max_tokens=80)
            beside.wait_tokens(3)
            sent = submit(engine, long_prompt(engine, 2000, salt))
            wait_for(lambda one=sent: loop._abortable or one.buffer.done)
            engine.cancel(sent.request)
            assert sent.done().finish_reason == "interrupted"
            got = beside.done()
            assert got.token_ids == alone.token_ids
            if aborted:
                break
        assert aborted, "no step was aborted"
    finally:
        engine.close()


def test_a_long_prompt_does_not_stall_the_others(load):
    engine = load(ctx=2048, prompt_chunk=32, prefix_cache=False)
    try:
        sent, steps, decoding, submitted = None, [], threading.Event(), threading.Event()

        def count():
            tokens = len(engine._loop._by_request[beside.request].tokens)
            if tokens > len(beside.request.prompt_ids):
                decoding.set()
                assert submitted.wait(WAIT_S)
            if sent is not None and not sent.buffer.done:
                steps.append(tokens)

        with each_step(engine, count):
            beside = submit(engine, "A story.", **LONG)
        assert decoding.wait(WAIT_S)
        sent = submit(engine, long_prompt(engine, 1900), max_tokens=1)
        submitted.set()
        sent.done()
        # 1,900 tokens in chunks of 32 take 60 steps, each of which also decodes a token of the other request.
        assert steps[-1] - steps[0] >= 50
        engine.cancel(beside.request)
        beside.done()
    finally:
        engine.close()


def test_a_chat_turn_computes_only_what_is_new(load):
    with_cache, without = load(), load(prefix_cache=False)
    try:
        history = with_cache.tokenize("<|system|>Be brief.<|end|>" + "<|user|>Tell me about the moon.<|end|>" * 12)
        known = 0
        for turn in range(3):
            ids = history + with_cache.tokenize(f"<|user|>Question {turn}?<|end|><|assistant|>")
            a, b = submit(with_cache, ids), submit(without, ids)
            answer = a.done().token_ids
            assert b.done().token_ids == answer
            assert (a.cached, b.cached) == (known, 0)
            # The last sampled token isn't computed until another one follows it.
            known = len(ids) + len(answer) - 1
            history = ids + list(answer)
    finally:
        with_cache.close()
        without.close()


def test_requests_at_once_share_a_beginning(load):
    engine, without = load(ctx=1024), load(ctx=1024, prefix_cache=False)
    try:
        begin = long_prompt(engine, 300)
        prompts = [begin + engine.tokenize(f"<|user|>Say {i}.<|end|><|assistant|>") for i in range(4)]
        shared = [submit(engine, ids) for ids in prompts]
        plain = [submit(without, ids) for ids in prompts]
        assert [one.done().token_ids for one in shared] == [one.done().token_ids for one in plain]
        assert shared[0].cached == 0
        # One that comes while the first is in its prompt waits for what is worth waiting for.
        assert all(one.cached >= 300 - 64 for one in shared[1:])
    finally:
        engine.close()
        without.close()


def test_a_repeated_prompt_is_computed_once(load):
    engine = load(ctx=2048)
    try:
        ids = long_prompt(engine, 60)
        answers, cached = [], []
        for _ in range(6):  # more than there are slots; an answer is longer than the prompt
            sent = submit(engine, ids, ignore_eos=True, max_tokens=150)
            answers.append(sent.done().token_ids)
            cached.append(sent.cached)
        assert cached == [0] + [len(ids) - 1] * 5
        assert answers == answers[:1] * 6
    finally:
        engine.close()


def test_requests_at_once_with_one_short_prompt_compute_it_once(load):
    engine = load(ctx=2048)
    try:
        ids = long_prompt(engine, 60)
        sent = [submit(engine, ids) for _ in range(4)]
        assert len({one.done().token_ids for one in sent}) == 1
        assert sorted(one.cached for one in sent)[1:] == [len(ids) - 1] * 3
    finally:
        engine.close()


def test_a_new_conversation_replaces_the_oldest_one(load):
    engine = load(concurrency=3)
    try:
        head = long_prompt(engine, 4)  # as a template's
        first, second, third, fourth = (head + long_prompt(engine, 80, salt) for salt in range(1, 5))
        for ids in (first, second, third, fourth):
            submit(engine, ids, max_tokens=1).done()
        for ids in (second, third, fourth):
            again = submit(engine, ids, max_tokens=1)
            again.done()
            assert again.cached == len(ids) - 1
    finally:
        engine.close()


def test_one_pool_makes_requests_wait_and_gives_the_same(load, engine):
    pool = load(ctx=1024, kv_tokens=1024)
    try:
        assert pool._settings.unified
        prompts = [long_prompt(pool, 300, salt) for salt in range(6)]
        options = {"ignore_eos": True, "max_tokens": 40}
        steps = []
        with each_step(pool, lambda: steps.append((len(pool._loop._running), len(pool._loop._waiting)))):
            sent = [submit(pool, ids, **options) for ids in prompts]
        tokens = [one.done().token_ids for one in sent]
        plain = [submit(engine, ids, **options).done().token_ids for ids in prompts]
        assert sum(a == b for a, b in zip(tokens, plain, strict=True)) >= 5
        assert (3, 3) in steps
        assert max(steps)[0] == 3
        assert pool._loop._slots._reserved == 0
    finally:
        pool.close()


def test_many_mixed_requests_leave_nothing(engine):
    sent = []
    for i in range(40):
        one = submit(
            engine, long_prompt(engine, 20 + 37 * i % 500, i % 5), temperature=i % 2 * 1.0, max_tokens=5 + i % 20
        )
        if i % 7 == 3:
            engine.cancel(one.request)
        sent.append(one)
    for one in sent:
        assert one.done().finish_reason in ("stop", "length", "interrupted")
    loop = engine._loop
    wait_for(lambda: not loop._running)
    assert not loop._by_request
    assert not loop._waiting
    assert loop._slots._reserved == 0


def test_a_bad_request_fails_alone(engine):
    good = submit(engine, "Hello.", ignore_eos=True)
    with pytest.raises(GenerationError, match="2047"):
        submit(engine, [3, 2048]).done()
    with pytest.raises(GenerationError):
        submit(engine, []).done()
    assert len(good.done().token_ids) == 24


def test_a_failing_step_fails_its_requests_and_no_more(engine):
    context = engine._loop._context
    real = context._decode
    try:
        context._decode = lambda *_: -3
        with pytest.raises(GenerationError, match="-3"):
            submit(engine, "Hello.").done()
        context._decode = lambda *_: 1 / 0
        with pytest.raises(GenerationError, match="ZeroDivisionError"):
            submit(engine, "Hello.").done()
    finally:
        context._decode = real
    assert submit(engine, "Hello.").done().token_ids
