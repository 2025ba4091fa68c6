"""Engines imported in the background: whole, alone, and without a trace in the process."""

import builtins
import importlib
import os
import subprocess
import sys
import threading

import pytest

import llmlab
from llmlab import _imports
from llmlab.errors import UnknownNameError
from llmlab.loading import warming


@pytest.fixture
def circle(tmp_path, monkeypatch):
    """Two modules that import each other. Imported by two threads at once, one of them sees the other's incomplete."""
    (tmp_path / "circle_a.py").write_text("import time\ntime.sleep(0.2)\nfrom circle_b import b\na = 1\n")
    (tmp_path / "circle_b.py").write_text("import time\ntime.sleep(0.2)\nimport circle_a\nb = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("circle_a", "circle_b"):
        sys.modules.pop(name, None)


def in_two_threads(first, second):
    """Run both at once; returns what the first raised."""
    raised = []

    def run():
        try:
            first()
        except BaseException as error:  # noqa: BLE001 - shown by the caller
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    second()
    thread.join()
    return raised


def test_imports_of_two_threads_wait_for_each_other(circle):
    begun = threading.Event()

    def background():
        with _imports.background(threading.Event()):
            begun.set()
            import circle_a  # noqa: F401

    def cell():
        begun.wait()
        import circle_b

        assert circle_b.b

    plain = builtins.__import__, importlib.import_module
    assert not in_two_threads(background, cell)
    assert sys.modules["circle_a"].a
    assert (builtins.__import__, importlib.import_module) == plain


def test_a_whole_module_is_not_waited_for(circle):
    """Most import statements of a cell are of modules that are there already."""
    begun, done = threading.Event(), threading.Event()

    def background():
        with _imports.background(threading.Event()), _imports._alone():
            begun.set()
            assert done.wait(60)

    def cell():
        begun.wait()
        import json
        from json import dumps

        assert json.dumps is dumps
        done.set()

    assert not in_two_threads(background, cell)


def test_a_stopped_import_ends():
    stop = threading.Event()
    stop.set()
    assert isinstance(in_two_threads(lambda: _stopped(stop), lambda: None)[0], SystemExit)


def _stopped(stop):
    with _imports.background(stop):
        import json  # noqa: F401


def test_names(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"vlm.*vllm"):
        llmlab.warm("vlm")
    monkeypatch.setenv("LLMLAB_WARM", "vlm")
    with pytest.warns(UserWarning, match="LLMLAB_WARM.*vlm"):
        warming.warm_from_environment()
    llmlab.warm("llamacpp", wait=True)
    assert "llama_cpp" in sys.modules


CELLS = """
import builtins, os, random, signal, sys
import numpy as np
import llmlab
from llmlab.loading import warming

def state():
    return random.getstate(), np.random.get_state()[1].tolist(), builtins.__import__, sys.excepthook

random.seed(1), np.random.seed(1)
before, environment = state(), dict(os.environ)
llmlab.warm("vllm")
os.environ["OWN"] = "1"
import torch.nn.functional
from transformers import AutoTokenizer
here = llmlab.load("nano", engine="llamacpp")
text = here.generate("What is the capital of France?", temperature=0).text
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    pass
there = llmlab.load("nano", engine="vllm")  # waits for the rest of the import
assert not warming._running["vllm"].is_alive() and warming._running["vllm"].error is None
assert state() == before
for found in (environment, os.environ):  # transformers sets it, which this cell imported, and tests before this one
    found.pop("TORCHINDUCTOR_CACHE_DIR", None)
assert {**environment, "OWN": "1"} == dict(os.environ), set(os.environ) ^ set(environment)
assert there.generate("What is the capital of France?", temperature=0).text == text
print("same")
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env={**os.environ, **environment}
    )


def test_vllm_while_cells_import_load_and_are_interrupted():
    ran = run(CELLS)
    assert (ran.returncode, ran.stdout.split()[-1:]) == (0, ["same"]), ran.stderr[-3000:]


EXTENSION = """
import threading, time
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_line_magic("load_ext", "llmlab")
print([thread.name for thread in threading.enumerate() if "warm" in thread.name])
time.sleep(0.5)
"""


def test_a_program_ends_in_the_middle_of_it():
    ran = run(EXTENSION, LLMLAB_WARM="vllm")
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "['llmlab-warm-vllm']", "")
