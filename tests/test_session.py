"""The bench: loading, replacing, using, unloading; what fails leaves it as it was."""

import subprocess
import sys
import threading

import pytest

from llmlab import Lab
from llmlab.errors import BadInputError, UnknownNameError, UnloadedError


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
