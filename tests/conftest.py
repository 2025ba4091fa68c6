"""Shared fixtures: both real engines on nano, loaded once a session; nothing written outside a temporary folder."""

import os
import signal
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, settings

_scratch = tempfile.TemporaryDirectory(prefix="llmlab-tests-")
os.environ["LLMLAB_CACHE"] = f"{_scratch.name}/cache"
os.environ["LLMLAB_DATA"] = f"{_scratch.name}/data"
os.environ["LLMLAB_LOGS"] = f"{_scratch.name}/logs"
os.environ["LLMLAB_MODELS"] = f"{_scratch.name}/models.toml"
os.environ.pop("HF_HUB_OFFLINE", None)

# A shell without job control starts background jobs with SIGINT ignored, and all their children inherit that: the
# tests of interrupts would wait for ever. A handler that is set is reset to the default in children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis fails examples that take 0.2 s, which on a busy machine any may, and draws others in each run.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ENGINES = ("llamacpp", "vllm")

# Memory that a test process with both engines may take, in bytes.
WORKER_BYTES = 8 * 2**30
# Files whose tests each run for long in a process of their own: they start first, and are shared out one by one.
LONG = ("tests/notebooks/test_notebooks.py", "tests/docs/test_examples.py")
# Browsers and terminals with limits of seconds, and what needs two cores: they run after the others, on all cores.
ALONE = ("browser", "widget_keys", "test_terminal", "test_vllm_split")


def _share_cores():
    """A worker of a parallel run has cores of its own: engines on the same cores wait for each other's threads."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    mine = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw")) :: count]
    if mine:
        os.sched_setaffinity(0, mine)


_share_cores()


def pytest_xdist_auto_num_workers():
    """A worker per core and 8 GiB, at most four; one process if there is room for one only."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, psutil.virtual_memory().total // WORKER_BYTES, 4)
    return count if count > 1 else 0


def pytest_xdist_make_scheduler(config, log):
    """Keep a file's tests on one worker, with the models that they share. A test of a long file is a group of its own.

    Not by the mark `xdist_group`: what xdist 3.8 writes into `Node._nodeid` for it has no effect in pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return nodeid if path in LONG else path

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items):
    """Mark the tests that run alone, and put those of long files first."""
    for item in items:
        if any(name in item.nodeid.partition("::")[0] for name in ALONE):
            item.add_marker(pytest.mark.alone)
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONG)


@pytest.fixture(scope="session")
def shared_lab():
    """A bench for tests that only ask; nothing may be loaded on it or unloaded from it by a test."""
    from llmlab import Lab

    lab = Lab()
    yield lab
    lab.close()


def _model(lab, engine):
    return lab.models.get(engine) or lab.load("nano", engine=engine, name=engine)


@pytest.fixture(scope="session")
def llamacpp(shared_lab):
    """nano in llama.cpp."""
    return _model(shared_lab, "llamacpp")


@pytest.fixture(scope="session")
def vllm(shared_lab):
    """nano in vLLM."""
    return _model(shared_lab, "vllm")


@pytest.fixture(params=ENGINES)
def model(request, shared_lab):
    """nano, in each engine in turn."""
    return _model(shared_lab, request.param)


@pytest.fixture
def lab():
    """A bench of the test's own."""
    from llmlab import Lab

    own = Lab()
    yield own
    own.close()


_MAIN = sys.modules["__main__"]


@pytest.fixture(scope="module", autouse=True)
def main_module():
    """Each module starts with Python's own `__main__`, which a shell replaces (then nothing can be spawned)."""
    sys.modules["__main__"] = _MAIN


@pytest.fixture(scope="module")
def ipython():
    """The process's one IPython shell for as long as a module runs; what was there before comes back afterwards."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.terminal.interactiveshell import TerminalInteractiveShell
    from traitlets.config import Config

    kinds = (TerminalInteractiveShell, InteractiveShell)
    before = [kind._instance for kind in kinds]
    for kind in kinds:
        kind._instance = None
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=config, colors="nocolor")
    for kind, instance in zip(kinds, before, strict=True):
        kind._instance = instance
