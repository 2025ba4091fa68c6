"""Loading, failing to load, and closing release everything."""

import gc
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from llmlab.engines.base import EngineLog
from llmlab.errors import BadInputError, Interrupted, LoadError, UnloadedError, UnsupportedError
from tests.engines.driver import submit


def threads():
    return psutil.Process().num_threads()


def threads_back_to(count, limit=60.0):
    """Whether the process gets down to `count` threads; OpenMP's threads end slightly after their owner."""
    end = time.monotonic() + limit
    while threads() > count and time.monotonic() < end:
        time.sleep(0.01)
    return threads() <= count


def test_close_with_running_requests(load):
    load().close()
    before = threads()
    engine = load(n_threads=2)
    running = [submit(engine, f"Story {i}.", ignore_eos=True, max_tokens=900) for i in range(4)]
    waiting = submit(engine, "Late.", ignore_eos=True, max_tokens=900)
    running[0].wait_tokens(3)
    engine.close()
    reasons = [one.done().finish_reason for one in [*running, waiting]]
    assert set(reasons) <= {"interrupted", "length"}
    assert waiting.done().finish_reason == "interrupted"
    engine.close()
    assert threads_back_to(before)
    assert submit_closed(engine).done().finish_reason == "interrupted"
    with pytest.raises(UnloadedError):
        engine.tokenize("x")
    assert engine.memory().resident == 0


def submit_closed(engine):
    return submit(engine, [3, 4, 5])


def test_a_dropped_engine_closes_itself(load):
    engine = load()
    sent = submit(engine, "Story.", ignore_eos=True, max_tokens=900)
    thread = engine._loop._thread
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert sent.done().finish_reason in ("interrupted", "length")


def test_two_engines_at_once(load):
    one, two = load(), load(ctx=512, concurrency=2)
    try:
        alone = submit(one, "Tell me about the moon.").done()
        pairs = [(submit(one, "Tell me about the moon."), submit(two, "Tell me about the moon.")) for _ in range(3)]
        for a, b in pairs:
            assert a.done().token_ids == b.done().token_ids == alone.token_ids
    finally:
        one.close()
        assert submit(two, "Tell me about the moon.").done().token_ids == alone.token_ids
        two.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "header", "empty"])
def test_a_broken_file(load, gguf, tmp_path, damage):
    data = gguf.read_bytes()
    broken = {
        "garbage": b"this is no model" * 1000,
        "truncated": data[: len(data) * 2 // 3],
        "header": data[:5000],
        "empty": b"",
    }
    path = tmp_path / "broken.gguf"
    path.write_bytes(broken[damage])
    load().close()
    before = threads()
    log = EngineLog(tmp_path / "engine.log")
    with pytest.raises(LoadError) as caught:
        load(path, log=log)
    reasons = {"garbage": "not a GGUF", "truncated": "truncated", "header": "truncated", "empty": "it is empty"}
    assert "broken.gguf" in str(caught.value)
    assert reasons[damage] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert threads_back_to(before)


def test_a_context_that_cannot_be_made(load, monkeypatch):
    import llama_cpp

    load().close()
    before = threads()
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda *_: None)
    with pytest.raises(LoadError, match="context"):
        load()
    assert threads_back_to(before)


def test_a_missing_file(load, tmp_path):
    with pytest.raises(BadInputError, match="There is no file"):
        load(tmp_path / "none.gguf")


def test_a_cancelled_load(load):
    load().close()
    before = threads()
    cancelled = threading.Event()

    def progress(phase, share):
        if phase == "weights":
            cancelled.set()

    with pytest.raises(Interrupted):
        load(progress=progress, cancelled=cancelled)
    cancelled = threading.Event()

    def late(phase, share):
        if phase == "warm-up":
            cancelled.set()

    with pytest.raises(Interrupted):
        load(progress=late, cancelled=cancelled)
    assert threads_back_to(before)


def test_progress(load):
    reported = []
    load(progress=lambda phase, share: reported.append((phase, share))).close()
    assert reported[0] == ("import", None)
    shares = [share for phase, share in reported if phase == "weights"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert reported[-1] == ("warm-up", 1.0)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"n_thread": 1}, "n_threads"),
        ({"n_batch": "many"}, "int"),
        ({"n_batch": 0}, "1 or more"),
        ({"use_mmap": 1}, "bool"),
        ({"flash_attn": "yes"}, "auto"),
        ({"cache_type_k": "q3"}, "q8_0"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "flash"),
        ({"kv_tokens": 100}, "1024"),
    ],
)
def test_bad_options(load, extra, expected):
    with pytest.raises(BadInputError, match=expected):
        load(**extra)


def test_options_work(load):
    options = {"n_batch": 64, "n_ubatch": 32, "flash_attn": "on", "cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    engine = load(use_mmap=False, n_threads_batch=1, **options)
    try:
        assert submit(engine, "Tell me about the moon.").done().token_ids
        assert "q8_0" in engine.describe()["KV cache"]
    finally:
        engine.close()


def test_gpu_layers_on_a_cpu_build(load):
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        pytest.skip("this build has GPU support")
    with pytest.raises(UnsupportedError, match="CPU only"):
        load(gpu_layers=2)
    load(gpu_layers=0).close()


SCRIPT = """
import gc, sys, threading
from pathlib import Path
import psutil
from llmlab.engines.base import EngineLog, LoadPlan, Request
from llmlab.engines.llamacpp import LlamaCppEngine
from llmlab.engines.stream import Buffer
from llmlab.files.source import Source
from llmlab.types import SamplingParams

def load():
    source = Source("x", "x", "gguf", Path(sys.argv[1]), "F16")
    plan = LoadPlan(source, context_length=2048, max_concurrency=8, extra={"n_threads": 1})
    log, cancelled = EngineLog(Path(sys.argv[2])), threading.Event()
    return LlamaCppEngine.open(plan, log=log, progress=lambda *a: None, cancelled=cancelled)

def submit(engine, n):
    given = dict(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=n, seed=0, ignore_eos=True)
    buffer = Buffer(1)
    engine.submit(Request("r", (2, 300, 301, 5, 3), SamplingParams(**given), buffer))
    return buffer
"""


def run_script(gguf, tmp_path, body):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(body), str(gguf), str(tmp_path / "engine.log")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_silent_and_clean_at_exit(gguf, tmp_path):
    """A run prints nothing but the user's output, and exits cleanly during a generation."""
    got = run_script(
        gguf, tmp_path, """
        engine = load()
        print("mine", flush=True)
        buffer = submit(engine, 2000)
        buffer.wait(5)
        print("mine too")
        """,
    )  # fmt: skip
    assert (got.returncode, got.stdout, got.stderr) == (0, "mine\nmine too\n", "")
    assert "llama_context" in (tmp_path / "engine.log").read_text()


def test_unload_gives_the_memory_back(gguf, tmp_path):
    got = run_script(
        gguf, tmp_path, """
        def cycle():
            engine = load()
            submit(engine, 50).wait_done(60)
            grown = engine.memory().resident
            engine.close()
            gc.collect()
            return grown
        cycle()
        rss = psutil.Process().memory_info().rss
        grown = [cycle() for _ in range(3)]
        print(max(grown), psutil.Process().memory_info().rss - rss)
        """,
    )  # fmt: skip
    assert got.returncode == 0, got.stderr
    grown, left = map(int, got.stdout.split())
    assert 10e6 < grown < 40e6  # the weights, and only the tokens in the KV cache
    assert left < 0.1 * grown


@pytest.mark.parametrize(
    "read",
    [
        lambda model: model.piece(9, special=True),
        lambda model: model.token_text(9),
        lambda model: model.meta("general.architecture"),
        lambda model: model.vector_size(scores=False),
        lambda model: model.surrounded("Hello"),
        lambda model: model.pair("Hello", "there"),
        lambda model: model.detokenize([9]),
    ],
)
def test_what_reads_freed_weights_raises(load, read):
    """llama.cpp read the freed vocabulary, which ended the process."""
    engine = load()
    read(engine._model)
    engine.close()
    with pytest.raises(UnloadedError):
        read(engine._model)


def test_an_unload_waits_for_the_vocabulary_that_another_thread_reads(load):
    """A guided request that was prepared during an unload ended the process (2 of 3 runs of 25 s with five threads)."""
    for _ in range(10):
        engine = load()
        raised, begun = [], threading.Event()

        def read(engine=engine, raised=raised, begun=begun):
            begun.set()
            try:
                _ = engine.grammars.tokenizer
            except UnloadedError as error:
                raised.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        begun.wait()
        engine.close()
        thread.join()
        assert len(raised) <= 1
