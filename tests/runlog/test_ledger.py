"""The memory ledger: loads as they happened, unloads as measured, and estimates that learn from them."""

import re

import numpy as np
import pytest

import llmlab
from llmlab.display import LedgerView
from llmlab.errors import DoesNotFitError
from llmlab.files import fit
from llmlab.machine import footprint, memory
from llmlab.machine.memory import Device
from llmlab.runlog import Ledger, RunLog

GB = 10**9


@pytest.fixture
def log(tmp_path):
    own = RunLog(tmp_path / "runs.db")
    yield own
    own.close()


def add(log, number, *, took, estimated=2 * GB, engine="llamacpp", machine=None):
    log.add_load({
        "key": str(number), "session": "s", "at": "2026-01-01T00:00:00+00:00",
        "machine": machine or footprint.machine_id(), "model": "m", "engine": engine, "quant": "F16", "device": "CPU",
        "context": 512, "concurrency": 1, "estimated": estimated, "loaded": took, "peak": took,
    })  # fmt: skip


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_a_load_and_its_unload_are_in_the_ledger(lab, engine):
    model = lab.load("nano", engine=engine, name=f"kept-{engine}", ctx=512)
    estimate = model.estimate
    row = lab.ledger.frame().iloc[-1]
    assert (row.model, row.engine, row.quant, row.device) == ("nano", engine, model.quant, "CPU")
    assert row.estimated == estimate.total - estimate.correction
    assert 0 <= row.loaded <= row.peak < 4 * GB
    assert np.isnan(row.returned)  # not yet known
    lab.unload(model.name)
    row = lab.ledger.frame().iloc[-1]
    assert row.returned >= 0
    assert row.kept >= 0
    assert re.search(rf"nano +{engine}", repr(LedgerView(lab.ledger)))


def test_it_spans_sessions(log):
    add(log, 1, took=GB)
    log.close()
    assert list(Ledger(RunLog(log.path)).frame().model) == ["m"]


@pytest.mark.parametrize(
    ("took", "factor"),
    [
        ([2.2, 2.2], None),  # too few
        ([2.2, 2.4, 2.0, 2.2], 1.1),  # the median
        ([1.0, 1.2, 0.9], 1.0),  # caches that weren't full prove nothing
        ([9.0, 9.0, 9.0], 2.0),  # at most twice
    ],
)
def test_an_estimate_learns_what_loads_took(log, took, factor):
    for number, size in enumerate(took):
        add(log, number, took=int(size * GB))
    add(log, 90, took=9 * GB, machine="another")
    add(log, 91, took=9 * GB, engine="vllm")
    add(log, 92, took=9 * GB, estimated=GB // 10)  # small: the process, not the model
    found = Ledger(log).correction("llamacpp", "CPU")
    assert (found.factor if found else None) == (pytest.approx(factor) if factor else None)


def test_a_corrected_estimate_says_by_how_much():
    plain = fit.Estimate("m", 10 * GB, 2 * GB, GB, 20 * GB, "CPU", 512, 1, 512)
    found = fit.correct(plain, 1.1, 5)
    assert found.total == pytest.approx(1.1 * plain.total)
    assert found.correction == found.total - plain.total
    assert "10% of all for what 5 loads on this machine took" in str(found)
    assert fit.correct(plain, 1.0, 5) == plain


def test_a_load_is_planned_with_the_correction(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    for number in range(3):
        add(lab.runlog, f"c{number}", took=3 * GB, engine="vllm")
    plain = llmlab.dry_run("nano", engine="vllm", ctx=512).estimate
    model = lab.load("nano", engine="vllm", name="learned", ctx=512)
    assert model.estimate.total == pytest.approx(1.5 * plain.total, rel=0.05)
    assert "3 loads on this machine" in str(model.estimate)


def test_a_model_that_does_not_fit_says_what_to_unload(lab, monkeypatch):
    held = lab.load("nano", engine="llamacpp", name="first", ctx=512)
    monkeypatch.setattr(memory, "cpu", lambda: Device("CPU", 20_000_000, 2 * GB))
    with pytest.raises(DoesNotFitError, match=r"%llm unload first \(frees about"):
        lab.load("nano", engine="llamacpp", name="second", ctx=2048)
    assert lab.models == {"first": held}
