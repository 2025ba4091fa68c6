"""The bench: loading, replacing, using, unloading; what fails leaves it as it was."""

import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from llmlab import Lab
from llmlab.errors import BadInputError, LoadError, UnknownNameError, UnloadedError


def test_auto_chooses_llamacpp_without_a_gpu_and_says_why(lab):
    model = lab.load("nano")
    assert model.engine == "llamacpp"
    assert "no GPU" in model.reason


def test_several_models_and_the_current_one(lab):
    one = lab.load("nano", engine="llamacpp", name="one")
    two = lab.load("nano", engine="llamacpp", quant="Q8_0", name="two")
    assert lab.current is two
    assert lab.use("one") is one
    assert lab.get("two").quant == "Q8_0"
    assert lab.unload("one") == ["one"]
    assert lab.current is two
    assert lab.unload(everything=True) == ["two"]
    assert lab.current is None
    with pytest.raises(UnknownNameError, match="No model is loaded"):
        lab.get()


def test_a_taken_name_is_replaced_only_by_a_model_that_stands(lab):
    first = lab.load("nano", engine="llamacpp", name="m")
    with pytest.raises(BadInputError):
        lab.load("nano", engine="llamacpp", quant="awq", name="m")
    assert lab.get("m") is first
    assert first.loaded
    second = lab.load("nano", engine="llamacpp", name="m", ctx=512)
    assert lab.models == {"m": second}
    assert second.facts.context_length == 512
    assert not first.loaded
    with pytest.raises(UnloadedError, match="%llm load nano"):
        first.generate("Hello")


def test_unloading_ends_what_runs(lab):
    model = lab.load("nano", engine="llamacpp")
    stream = model.stream("Hello", max_tokens=1900, ignore_eos=True)
    next(iter(stream))
    lab.unload()
    assert stream.result().finish_reason == "interrupted"


def test_no_thread_stays_behind(lab):
    before = set(threading.enumerate())
    lab.load("nano", engine="llamacpp")
    lab.close()
    assert {t for t in threading.enumerate() if t.is_alive()} <= before


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a+b"])
def test_a_name_that_would_mean_something_else_is_refused(lab, name):
    with pytest.raises(BadInputError):
        lab.load("nano", name=name)


def test_import_loads_no_engine_and_lab_is_light():
    code = (
        "import sys, llmlab; llmlab.Lab(); "
        "heavy = {'vllm', 'torch', 'llama_cpp', 'outlines', 'peft', 'datasets', 'transformers', 'pandas', 'IPython'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_log_is_kept_and_shown(lab):
    assert "No engine" in Lab().logs()
    lab.load("nano", engine="llamacpp")
    assert "llama" in lab.logs()
    assert lab.logs("nano") == lab.logs()


def test_unload_from_python_gives_up_the_place_on_the_bench(lab):
    """It stayed there, as the current model, and failed every request that named none."""
    one = lab.load("nano", engine="llamacpp", name="one")
    two = lab.load("nano", engine="llamacpp", name="two")
    two.unload()
    assert lab.models == {"one": one}
    assert lab.get() is one
    two.unload()
    one.unload()
    with pytest.raises(UnknownNameError, match="No model is loaded"):
        lab.get()
    assert lab.load("nano", engine="llamacpp", name="two") is lab.current


def test_a_switch_that_releases_first_keeps_the_place(lab, monkeypatch):
    from llmlab.loading import switch

    first = lab.load("nano", engine="llamacpp", name="first")
    lab.load("nano", engine="llamacpp", name="second")
    plan = switch.plan_switch
    monkeypatch.setattr("llmlab.session.plan_switch", lambda *given: replace(plan(*given), first_release=True))
    assert lab.switch_quant("Q8_0", name="first") is first
    assert list(lab.models) == ["first", "second"]
    assert lab.current is lab.get("second")
    assert first.generate("Hello", max_tokens=2).text
    start = lab._start

    def fails_once(*given):
        monkeypatch.setattr(lab, "_start", start)
        raise LoadError("no")

    monkeypatch.setattr(lab, "_start", fails_once)
    with pytest.raises(LoadError):
        lab.switch_quant("F16", name="first")
    assert (list(lab.models), first.loaded, first.quant) == (["first", "second"], True, "Q8_0")

    def always_fails(*_):
        raise LoadError("no")

    monkeypatch.setattr(lab, "_start", always_fails)
    with pytest.raises(LoadError):
        lab.switch_quant("F16", name="first")
    assert list(lab.models) == ["second"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_is_told_instead_of_left_waiting(llamacpp):
    """The engine's thread doesn't come along: a request of the child waited for ever."""
    running = llamacpp.stream("Hello", max_tokens=1900, ignore_eos=True)
    running.start()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = []
        for use in (
            lambda: llamacpp.generate("Hello"),
            lambda: llamacpp.tokenize("Hello"),
            lambda: llamacpp.remove_adapter("x"),
            running.result,
        ):
            try:
                use()
            except Exception as error:  # noqa: BLE001 - the parent looks at it
                said.append(isinstance(error, UnloadedError) and "fork" in str(error) and "spawn" in str(error))
        os.write(writing, repr(said).encode())
        os._exit(0)
    running.cancel()
    os.close(writing)
    try:
        assert select.select([reading], [], [], 30)[0], "the child hangs"
        assert os.read(reading, 1000) == b"[True, True, True, True]"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    assert llamacpp.generate("Hello", max_tokens=2).text
