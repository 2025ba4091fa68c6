"""Jobs on a local Ray cluster with two workers: the same rows, and nothing lost with a worker."""

import os
import signal

import psutil
import pytest

import llmlab
from llmlab.errors import BadInputError, EngineMissingError
from llmlab.jobs import cluster

PROMPT = "What is the capital of {{country}}?"
ROWS = [{"country": name, "style": ""} for name in ["France", "Italy", "Peru", "Spain", "Japan", "Kenya"] * 8]
GREEDY = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def ray():
    """A local cluster with two CPUs."""
    ray = pytest.importorskip("ray", reason="ray isn't installed: pip install 'llmlab[ray]'")
    import contextlib

    with contextlib.ExitStack() as closing:
        cluster.connect("ray", 2, closing)
        yield ray


def test_a_killed_worker_loses_nothing_and_a_poisoned_row_fails_alone(ray, llamacpp, shared_lab, tmp_path):
    rows = [*ROWS[:20], {"country": "Chad", "style": "no-such"}, *ROWS[20:]]
    given = {"model": llamacpp, "lab": shared_lab, "adapter_column": "style", "shard_rows": 5, **GREEDY}
    killed = []

    def kill(text, fraction):
        if fraction is not None and fraction > 0.3 and not killed:
            children = psutil.Process().children(recursive=True)
            actors = [one.pid for one in children if "EngineActor" in " ".join(one.cmdline())]
            killed.extend(actors)
            os.kill(actors[0], signal.SIGKILL)

    far = llmlab.map(rows, PROMPT, output=tmp_path / "far", on="ray", workers=2, progress=kill, **given)
    here = llmlab.map(rows, PROMPT, output=tmp_path / "here", **given)
    assert len(killed) == 2
    assert [row["row"] for row in far if row["error"]] == [20]
    # Row for row the same, byte for byte, so that a job begun here goes on there.
    assert _content(far) == _content(here)
    assert llmlab.map(rows, PROMPT, output=tmp_path / "here", on="ray", workers=2, **given).computed == 0


def _content(job):
    return b"".join(file.read_bytes() for file in sorted(job.path.glob("rows-*")))


def test_too_many_workers_are_refused(ray, llamacpp, shared_lab, tmp_path):
    with pytest.raises(BadInputError, match="too few for 99 workers"):
        llmlab.map(ROWS, PROMPT, model=llamacpp, lab=shared_lab, on="ray", workers=99, output=tmp_path, **GREEDY)


def test_without_ray_the_extra_is_named(monkeypatch):
    def missing(_):
        raise ImportError("No module named 'ray'")

    monkeypatch.setattr(cluster._imports, "load", missing)
    with pytest.raises(EngineMissingError, match=r"llmlab\[ray\]"):
        cluster.checked("ray")
    with pytest.raises(BadInputError, match="no place to run"):
        cluster.checked("slurm")
