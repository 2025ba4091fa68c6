"""The buffer between an engine and its readers, and the stream over it. No model: the engine is scripted."""

import asyncio
import gc
import threading
import time

import pytest

from llmlab.engines.stream import Buffer
from llmlab.errors import GenerationError, Interrupted
from llmlab.inference.stream import Stream, wait_all
from llmlab.types import Completion, SamplingParams


def make_stream(buffer, cancelled=None):
    def complete(buf):
        return Completion(
            choices=buf.choices(logprobs=False, seeds=[0]),
            usage=buf.usage(1),
            timings=buf.timings(),
            model="m",
            engine="e",
            quant="q",
            params=SamplingParams(),
        )

    def cancel():
        if cancelled is not None:
            cancelled.append(True)
        buffer.finish("interrupted")

    return Stream(lambda: (buffer, cancel), complete)


def feed(buffer, pieces, delay=0.0, reason="stop"):
    def work():
        for i, piece in enumerate(pieces):
            buffer.push(piece, (i,))
            time.sleep(delay)
        buffer.finish(reason)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_chunks_come_in_order_and_replay():
    buffer = Buffer()
    stream = make_stream(buffer)
    thread = feed(buffer, ["a", "b", "c"], delay=0.01)
    first = [c.text for c in stream]
    assert first == ["a", "b", "c", ""]
    assert [c.text for c in stream] == first
    assert stream.result().text == "abc"
    assert stream.result().finish_reason == "stop"
    thread.join()


def test_a_stream_is_lazy():
    started = []
    stream = Stream(lambda: started.append(True) or (Buffer(), lambda: None), lambda b: b)
    assert not started
    assert not stream.done
    stream.start()
    assert started


def test_dropping_a_stream_cancels_its_request():
    cancelled = []
    stream = make_stream(Buffer(), cancelled)
    stream.start()
    del stream
    gc.collect()
    assert cancelled


def test_breaking_out_of_the_loop_cancels_the_request():
    cancelled = []
    buffer = Buffer()
    buffer.push("a", (1,))
    for _ in make_stream(buffer, cancelled):
        break
    gc.collect()
    assert cancelled


def test_a_failure_is_raised_to_every_reader():
    buffer = Buffer()
    stream = make_stream(buffer)
    buffer.push("a", (1,))
    buffer.fail(GenerationError("it broke"))
    got = []
    with pytest.raises(GenerationError, match="it broke"):
        got.extend(stream)
    with pytest.raises(GenerationError):
        stream.result()


def test_ctrl_c_keeps_the_partial(monkeypatch):
    buffer = Buffer()
    cancelled = []
    stream = make_stream(buffer, cancelled)
    buffer.push("half an ", (1,))

    def interrupt(timeout=None):
        raise KeyboardInterrupt

    real = buffer.wait_done
    calls = iter([interrupt, real])
    monkeypatch.setattr(buffer, "wait_done", lambda timeout=None: next(calls)(timeout))
    with pytest.raises(Interrupted) as caught:
        stream.result()
    assert cancelled
    assert caught.value.partial.text == "half an "
    assert caught.value.partial.finish_reason == "interrupted"


def test_async_readers_see_the_same():
    buffer = Buffer()
    stream = make_stream(buffer)

    async def both():
        thread = feed(buffer, ["x", "y"], delay=0.01)
        one = [c.text async for c in stream]
        two = [c.text async for c in stream]
        thread.join()
        return one, two

    one, two = asyncio.run(both())
    assert one == two == ["x", "y", ""]


def test_a_cancelled_task_cancels_the_request():
    cancelled = []

    async def main():
        task = asyncio.create_task(make_stream(Buffer(), cancelled).aresult())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cancelled


def test_one_failure_in_a_batch_cancels_the_rest():
    good, bad, cancelled = Buffer(), Buffer(), []
    bad.fail(GenerationError("no"))
    with pytest.raises(GenerationError):
        wait_all([make_stream(bad), make_stream(good, cancelled)], progress_after_s=60)
    assert cancelled


def test_timings_count_tokens_after_the_first():
    buffer = Buffer(2)
    for i in range(2):
        buffer.start(i)
    buffer.push("a", (1,), index=0)
    buffer.push("b", (1,), index=1)
    buffer.push("c", (2,), index=0)
    timings = buffer.timings()
    assert timings.decoded == 2
    assert timings.ttft_s is not None
    assert timings.total_s >= timings.ttft_s
    assert buffer.usage(5).total_tokens == 8


def test_nothing_is_added_after_the_end():
    buffer = Buffer()
    buffer.finish("length", text="tail")
    buffer.push("late", (9,))
    buffer.finish("stop")
    (choice,) = buffer.choices(logprobs=False, seeds=[None])
    assert choice.text == "tail"
    assert choice.finish_reason == "length"
