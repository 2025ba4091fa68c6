"""The core in a child process, as on a GPU, forced on the CPU build. One load for nearly all tests, about 25 seconds.

What the tests can't force: the GPU's worker and kernels, and the sizing of its KV cache.
"""

import math
import threading

import psutil
import pytest

from llmlab import Lab
from llmlab.engines.base import Adapter, EngineLog
from llmlab.engines.vllm import load as vllm_load
from llmlab.engines.vllm import options
from llmlab.engines.vllm.child import reason
from llmlab.errors import GenerationError, LoadError, UnloadedError, UnsupportedError
from tests.engines.driver import submit
from tests.engines.vllm.conftest import CHILD_OPTIONS, forced

STORY = "Tell me a short story about a fox."


@pytest.fixture(scope="module")
def phases():
    return []


@pytest.fixture(scope="module")
def child_model(phases):
    """nano with its core in a child process. The last test of the module kills it."""
    lab = Lab()
    options = {"engine": "vllm", "name": "child", "ctx": 512, "max_concurrency": 4, "extra": CHILD_OPTIONS}
    with forced():
        model = lab.load("nano", progress=lambda phase, _: phases.append(phase), **options)
    yield model
    lab.close()


@pytest.fixture(scope="module")
def child(child_model):
    """Its engine."""
    return child_model._live()


def test_a_load_shows_its_phases_and_its_log(child, phases):
    assert [phase for phase in dict.fromkeys(phases) if phase != "import"] == ["weights", "warm-up"]
    assert child._loop.warm_up_s > 0
    assert "Loading weights took" in child._loop._log.tail(400)
    described = child.describe()
    assert described["runs"] == "in a child process"
    assert described["KV cache"] != "0 tokens"
    # 0.02 GiB of float32 values, in whole blocks.
    assert 0.015 * 2**30 < child.memory().kv_cache <= 0.02 * 2**30


def test_it_answers_alone_in_a_batch_and_from_a_cached_prefix(child):
    prompts = [STORY, "What is the capital of France?", "Who are you?"]
    alone = [submit(child, prompt).done() for prompt in prompts]
    together = [sent.done() for sent in [submit(child, prompt) for prompt in prompts]]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({one.text for one in alone}) == 3
    ids = child.tokenize("The fox ran far. " * 90)[:400]
    submit(child, ids, max_tokens=2).done()
    again = submit(child, ids, max_tokens=2)
    again.done()
    assert again.cached >= 256


def test_seeds_stops_and_logprobs(child):
    def drawn():
        return submit(child, STORY, temperature=1.0, seed=7, logprobs=2).done()

    first = drawn()
    assert drawn().token_ids == first.token_ids
    assert [entry.token_id for entry in first.logprobs] == list(first.token_ids)
    full = submit(child, STORY, max_tokens=60).done().text
    cut = submit(child, STORY, max_tokens=60, stop=(full[20:26],)).done()
    assert cut.text == full[: full.index(full[20:26])]


def test_cancelling_frees_the_request(child):
    sent = submit(child, STORY, max_tokens=400, ignore_eos=True)
    sent.wait_tokens(3)
    child.cancel(sent.request)
    assert sent.done().finish_reason == "interrupted"
    assert submit(child, STORY, max_tokens=4).done().finish_reason == "length"


@pytest.mark.parametrize("temperature", [2.5, 0.005])
def test_a_temperature_that_the_core_refuses_or_changes_is_refused(child, temperature):
    with pytest.raises(UnsupportedError, match=rf"0\.01 to 2, got {temperature}"):
        submit(child, STORY, temperature=temperature).done()
    assert submit(child, STORY, temperature=2.0, max_tokens=4).done().token_ids
    assert submit(child, STORY, temperature=0.01, max_tokens=4).done().token_ids


ANIMALS = {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 2}


@pytest.mark.parametrize("place", ["child_model", "vllm"])
def test_a_text_that_is_closed_has_the_log_probability_of_each_token(place, request):
    model = request.getfixturevalue(place)
    options = {"schema": ANIMALS, "complete": True, "temperature": 0, "max_tokens": 24}
    answer = model.generate("Name some animals.", logprobs=2, **options)
    assert isinstance(answer.parsed, list)
    assert answer.finish_reason == "stop"
    assert len(answer.logprobs) == answer.usage.completion_tokens
    assert all(math.isfinite(entry.logprob) and len(entry.top) == 2 for entry in answer.logprobs)
    assert b"".join(bytes(entry.bytes) for entry in answer.logprobs).decode() == answer.text
    assert model.generate("Name some animals.", **options).text == answer.text


def test_an_adapter_is_attached_used_and_removed(child_model, vllm):
    asked = {"prompt": "Who are you?", "temperature": 0, "max_tokens": 24}
    base = child_model.generate(**asked).text
    child_model.add_adapter("pirate", "pirate")
    try:
        pirate = child_model.generate(**asked, adapter="pirate").text
        assert pirate != base
        assert child_model.generate(**asked).text == base
    finally:
        child_model.remove_adapter("pirate")
    assert child_model.generate(**asked).text == base


def test_a_given_text_is_scored(child_model):
    ids = child_model.tokenize("The fox ran far.")
    rows = child_model.score(ids)
    assert rows.shape == (len(ids) - 1, child_model.facts.vocab_size)
    assert "likeliest" in child_model.score_note


def test_a_second_load_leaves_the_first_ones_stream_alone(child, load, monkeypatch):
    started, go_on = threading.Event(), threading.Event()

    def build(*_, **__):
        started.set()
        assert go_on.wait(60)
        raise ValueError("made to fail")

    monkeypatch.setattr(vllm_load, "build", build)
    outcome = []

    def second():
        try:
            with forced():
                load(**CHILD_OPTIONS)
        except LoadError as error:
            outcome.append(error)

    loading = threading.Thread(target=second)
    loading.start()
    assert started.wait(60)
    assert submit(child, STORY).done().text
    go_on.set()
    loading.join(60)
    assert "made to fail" in str(outcome[0])


def test_the_reason_of_a_failed_core_is_the_last_real_error():
    log = """
INFO [vllm.v1.engine.core] Initializing
ERROR [vllm.v1.engine.core] EngineCore failed to start.
Traceback (most recent call last):
  File "core.py", line 3, in run
ValueError: Free memory on device (1.5/80 GiB) on startup is less than desired.
(EngineCore pid=17) Process EngineCore:
(EngineCore pid=17) ValueError: Free memory on device (1.5/80 GiB) on startup is less than desired.
08:00:01 RuntimeError: Engine core initialization failed. See root cause above.
"""
    assert reason(log) == "ValueError: Free memory on device (1.5/80 GiB) on startup is less than desired."
    assert reason("INFO [vllm] nothing wrong\n") == ""


def test_the_reason_is_not_an_earlier_loads_error_in_the_same_file(tmp_path):
    first = EngineLog(tmp_path / "engine.log")
    first.write("ValueError: of the first load\n")
    second = EngineLog(tmp_path / "engine.log")
    for log in (first, second):
        log.shared = True
    assert reason(second.tail(400)) == ""
    second.write("ValueError: of the second load\n")
    assert reason(second.tail(400)) == "ValueError: of the second load"
    assert "of the first load" in first.tail(400)
    for log in (first, second):
        log.close()


def test_a_core_that_loses_its_input_thread_fails_all_requests_and_is_closed(child, monkeypatch):
    core = psutil.Process(next(iter(child._loop._watch.pids)))
    family = [core, *core.children(recursive=True)]
    monkeypatch.setattr(options, "crosses", lambda _: True)
    running = submit(child, STORY, max_tokens=400, ignore_eos=True)
    sent = submit(child, STORY, temperature=3.0)
    for one in (running, sent):
        with pytest.raises(GenerationError, match="load the model again"):
            one.done()
    with pytest.raises(GenerationError, match="Load the model again"):
        submit(child, STORY).done()
    with pytest.raises(GenerationError, match="Load the model again"):
        child.attach(Adapter("none", "none", 8))
    child.close()
    with pytest.raises(UnloadedError):
        child.memory()
    assert not psutil.wait_procs(family, timeout=60)[1]
