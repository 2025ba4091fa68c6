"""Loading, unloading, interrupting a load, failures, and several engines at once."""

import gc
import importlib.metadata
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import psutil
import pytest

from llmlab.engines.vllm import logs
from llmlab.engines.vllm.child import own_session
from llmlab.engines.vllm.load import import_error, suggested_fix
from llmlab.engines.vllm.loop import StepLoop
from llmlab.engines.vllm.process import SHARED
from llmlab.errors import (
    BadInputError,
    EngineMissingError,
    GenerationError,
    Interrupted,
    LoadError,
    UnloadedError,
    UnsupportedError,
)
from tests.engines.driver import submit
from tests.hub.fakes import NANO

STORY = "Tell me a short story about a fox."


def engine_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("llmlab-vllm")]


def resident():
    gc.collect()
    return psutil.Process().memory_info().rss


@pytest.fixture(autouse=True)
def _nothing_left():
    """Every test releases what it loaded: threads, processes, log handlers."""
    before = len(engine_threads()), set(SHARED.live)
    yield
    assert (len(engine_threads()), SHARED.live) == before
    assert not [child for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()]
    if not before[0]:
        assert logging.getLogger("vllm").handlers == []


def test_an_interrupt_in_a_callback_prints_nothing(monkeypatch):
    """Ctrl-C during a load printed "Exception ignored in: <function WeakSet...>" with a traceback."""
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: shown.append(found.exc_type))

    def ends(kind):
        def callback(_):
            raise kind

        one = type("One", (), {})()
        reference = weakref.ref(one, callback)
        del one
        assert reference() is None

    with logs.unreported(KeyboardInterrupt):
        ends(KeyboardInterrupt)
        ends(ValueError)
    ends(KeyboardInterrupt)
    assert shown == [ValueError, KeyboardInterrupt]


def test_a_load_during_an_unload_stays_in_this_process(load):
    """The end of the unload took the load's variables away: vLLM put the worker into a process that nothing ends."""
    opened, before = [], set(psutil.Process().children(recursive=True))
    thread = threading.Thread(target=lambda: opened.append(load()))
    with SHARED.turns, logs.environment({}):  # as the end of another engine
        thread.start()
        while not SHARED.loading.locked():
            time.sleep(0.01)
        time.sleep(0.1)
    thread.join()
    (engine,) = opened
    try:
        assert type(engine._loop.loaded.llm.model_executor).__name__ == "UniProcExecutor"
        assert not set(psutil.Process().children(recursive=True)) - before
    finally:
        engine.close()


def test_closing_ends_requests_frees_memory_and_may_be_repeated(load):
    first = load(concurrency=32, ctx=1024)
    submit(first, STORY).done()
    first.close()
    before = resident()
    engine = load(concurrency=32, ctx=1024)
    grown = resident() - before
    running = [submit(engine, STORY, max_tokens=500, ignore_eos=True) for _ in range(40)]
    assert running[0].buffer.wait(1, 120)
    engine.close()
    assert {sent.done().finish_reason for sent in running} == {"interrupted"}
    engine.close()
    with pytest.raises(UnloadedError):
        submit(engine, STORY).done()
    with pytest.raises(UnloadedError):
        engine.memory()
    assert grown > 100 * 2**20  # the KV cache of 32 sequences
    assert resident() - before < 0.2 * grown  # 0.11 seen: the allocator keeps some


def test_two_engines_at_once_answer_as_each_alone_and_close_apart(load):
    alone = load()
    wanted = submit(alone, STORY, max_tokens=80).done()
    alone.close()
    first = load()
    second = load(concurrency=2)
    sent = [submit(engine, STORY, max_tokens=80) for engine in (first, second) * 2]
    assert [one.done().token_ids for one in sent] == [wanted.token_ids] * 4
    running = submit(second, STORY, max_tokens=400, ignore_eos=True)
    first.close()
    assert running.done().finish_reason == "length"
    assert submit(second, STORY, max_tokens=80).done().token_ids == wanted.token_ids
    third = load()
    second.close()
    assert submit(third, STORY, max_tokens=80).done().token_ids == wanted.token_ids
    third.close()


# The exception that ends the load may be raised in a test plugin's garbage-collection callback, which reports it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("phase", "delay"), [("weights", 0.0), ("weights", 0.2), ("weights", 0.25), ("warm-up", 0.0)])
def test_a_load_that_is_cancelled_leaves_nothing_and_the_next_one_works(load, monkeypatch, phase, delay):
    cancelled, seen, before = threading.Event(), threading.Event(), engine_threads()

    def begin(loop, now):
        vars(loop)["phase"] = now
        if now == phase:  # nano's phases are shorter than the time between two looks at them
            assert seen.wait(60)
            time.sleep(0.2)

    monkeypatch.setattr(StepLoop, "phase", property(lambda loop: vars(loop)["phase"], begin), raising=False)

    def progress(now, fraction):
        if now == phase and not cancelled.is_set():
            seen.set()
            time.sleep(delay)
            cancelled.set()

    with pytest.raises(Interrupted):
        load(progress=progress, cancelled=cancelled)
    assert cancelled.is_set()
    assert engine_threads() == before
    engine = load()
    assert submit(engine, STORY).done().text
    engine.close()


def broken(folder, drop):
    """A copy of nano without one tensor."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(NANO, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors[drop]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_missing_tensor_is_a_load_error_that_names_it_and_leaves_nothing(load, tmp_path):
    other = load()
    with pytest.raises(LoadError) as caught:
        load(broken(tmp_path / "nano", "model.layers.3.mlp.down_proj.weight"))
    assert "down_proj" in str(caught.value) + caught.value.log_tail
    # The other engine stays usable, and another load works.
    assert submit(other, STORY).done().text
    other.close()
    again = load()
    assert submit(again, STORY).done().text
    again.close()


def test_a_truncated_file_is_a_load_error(load, tmp_path):
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(LoadError):
        load(folder)


def test_a_dead_engine_reports_it_and_rejects_later_requests(load, monkeypatch):
    from vllm.v1.engine.exceptions import EngineDeadError

    engine = load()

    def die():
        raise EngineDeadError

    monkeypatch.setattr(engine._loop.loaded.llm, "step", die)
    with pytest.raises(GenerationError, match="load the model again"):
        submit(engine, STORY).done()
    with pytest.raises(GenerationError, match=r"Load the model again"):
        submit(engine, STORY).done()
    engine.close()


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"tp": 2, "max_loras": 2}, UnsupportedError, "Adapters weren't tried"),
        ({"dtype": "int3"}, BadInputError, "bfloat16"),
        ({"kv_cache_gib": -1.0}, BadInputError, "kv_cache_gib"),
        ({"gpu_memory_utilization": 1.5}, BadInputError, "at most 1"),
        ({"threads": 0}, BadInputError, "threads"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(load, options, error, expected):
    with pytest.raises(error, match=expected):
        load(**options)


def test_a_kv_cache_too_small_for_one_sequence_is_a_clear_error(load):
    with pytest.raises(LoadError, match="KV cache"):
        load(ctx=2048, kv_cache_gib=0.001)


def test_options_reach_vllm(load):
    options = {"dtype": "float32", "kv_cache_gib": 0.02, "enable_prefix_caching": False}
    engine = load(**options, max_num_batched_tokens=256, threads=2)
    described = engine.describe()
    assert (described["dtype"], described["prefix caching"], described["tokens per step"]) == ("float32", "off", "256")
    assert described["threads"].startswith("2")
    assert engine.memory().kv_cache <= 0.02 * 2**30
    assert engine.memory().weights == 4 * 5_246_208
    assert submit(engine, STORY).done().text
    engine.close()


def test_a_missing_torchvision_is_named_with_the_one_that_fits(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu" if name == "torch" else real(name))
    for text in ("ModuleNotFoundError: No module named 'torchvision'", "X requires the Torchvision library"):
        fix = suggested_fix(text)
        assert '"torchvision==0.28.*" --index-url https://download.pytorch.org/whl/cpu' in fix
        assert "llamacpp" in fix
    assert suggested_fix("out of memory") == "See the full log with %llm logs."


def test_the_torchvision_trap_is_named():
    trap = import_error(RuntimeError("operator torchvision::nms does not exist"))
    assert "pip uninstall -y torchvision torchaudio torchcodec" in trap.hint
    assert isinstance(import_error(ModuleNotFoundError("No module named 'vllm'", name="vllm")), EngineMissingError)
    assert "doctor" in import_error(ImportError("something else")).hint


def _session(parents):
    print("output")
    sys.exit(0 if os.getsid(0) != parents else 3)


def test_a_spawned_core_has_its_own_session_and_writes_to_the_log(tmp_path):
    spawn = multiprocessing.get_context("spawn")

    def code():
        process = spawn.Process(target=_session, args=(os.getsid(0),))
        process.start()
        process.join(60)
        return process.exitcode

    with own_session(tmp_path / "log"):
        inside = code()
    assert (inside, code()) == (0, 3)
    assert "output" in (tmp_path / "log").read_text()


FRESH = """
import logging, os, random, signal, sys, threading, time, warnings
from pathlib import Path
sys.path[:0] = {path!r}
from llmlab.engines.base import EngineLog, LoadPlan
from llmlab.engines.vllm import VllmEngine
from llmlab.errors import Interrupted
from llmlab.files.source import Source
from tests.engines.driver import submit
from tests.hub.fakes import NANO

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
random.seed(3)
wanted = random.Random(3).random()

def state():
    return (
        dict(os.environ), list(logging.getLogger().handlers), logging.getLogger().level, warnings.showwarning,
        [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)], sys.stdout, sys.stderr,
        os.getcwd(), threading.excepthook, sys.excepthook,
    )

def load(cancelled, until=1.0):
    def progress(phase, share):
        phases.append((phase, share))
        if share is not None and share > until:
            cancelled.set()

    plan = LoadPlan(Source("nano", "nano", "safetensors", NANO, "bf16"), context_length=256, max_concurrency=2)
    log = EngineLog(Path({log!r}))
    return VllmEngine.open(plan, log=log, progress=progress, cancelled=cancelled)

before, phases = state(), []
try:
    load(threading.Event(), until=0.1)
except Interrupted:
    print("interrupted in", phases[-1][0])
engine = load(threading.Event())
after = state()
assert [a for a, b in zip(after, before) if a != b] == [], "the process was changed"
import torch
assert torch.get_num_threads() == len(os.sched_getaffinity(0)), "torch's thread count has changed"
assert torch.set_num_threads.__module__ != "vllm.v1.worker.cpu_worker"
assert torch.get_default_dtype() == torch.float32
assert random.random() == wanted, "random was seeded"
shares = [f for p, f in phases if p == "import" and f is not None]
assert len(set(shares)) > 3 and 0 <= min(shares) and max(shares) < 1
print("phases", *dict.fromkeys(p for p, f in phases))
choice = submit(engine, "Hello!", logprobs=1, temperature=0.8).done()
print("answered", bool(choice.text))
submit(engine, "Hello!", max_tokens=200, ignore_eos=True)
print("leaving")
"""


def test_a_fresh_process_is_unchanged_by_a_load_and_ends_quietly(tmp_path):
    log = tmp_path / "engine.log"
    script = FRESH.format(path=[str(Path(__file__).parents[3])], log=str(log))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM", "OMP", "TORCH"))}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=200, env=env, check=False
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "interrupted in import",
        "phases import weights warm-up",
        "answered True",
        "leaving",
    ]
    assert ended.returncode == 0
    assert "Loading weights took" in log.read_text()
