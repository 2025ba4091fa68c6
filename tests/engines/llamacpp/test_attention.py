"""Flash attention's measurement on x86 CPUs: made once, kept in the cache, never a reason for a load to fail."""

import json

import pytest

import llmlab
from llmlab.engines.llamacpp import attention
from llmlab.errors import DiskError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache on an x86 machine."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    attention._ratio.cache_clear()
    return tmp_path


def notes(cache):
    return [json.loads(path.read_text(encoding="utf-8")) for path in cache.glob("measured/*.json")]


def test_the_real_measurement_is_kept(cache, monkeypatch):
    assert not attention.known_to_pay()
    pays = attention.pays()
    (note,) = notes(cache)
    assert note["speed"] > 0
    assert pays == (note["speed"] >= attention._LEAST) == attention.known_to_pay()
    monkeypatch.setattr(attention, "_ratio", lambda: pytest.fail("measured again"))
    assert attention.pays() == pays
    assert [path.suffix for path in cache.rglob("*") if path.is_file()] == [".json"]


@pytest.mark.parametrize("speed", [0.46, 0.92])
def test_the_two_machines_that_were_measured_are_told_apart(cache, monkeypatch, speed):
    monkeypatch.setattr(attention, "_ratio", lambda: speed)
    assert attention.pays() == (speed == 0.92)
    assert attention.known_to_pay() == (speed == 0.92)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"speed": null}', '{"speed": "fast"}'])
def test_a_damaged_note_is_measured_again(cache, monkeypatch, text):
    monkeypatch.setattr(attention, "_ratio", lambda: 1.0)
    assert attention.pays()
    (path,) = cache.glob("measured/*.json")
    path.write_text(text, encoding="utf-8")
    assert not attention.known_to_pay()
    assert attention.pays()
    assert notes(cache)[0]["speed"] == 1.0


@pytest.mark.parametrize("error", [OSError("rejected"), MemoryError("no context"), DiskError("no folder", "")])
def test_a_failed_measurement_means_without(cache, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(attention, "_ratio", fail)
    assert not attention.pays()
    assert notes(cache) == []


def test_without_a_writable_cache_it_is_measured_per_process(cache, monkeypatch):
    (cache / "measured").write_text("a file")
    assert attention.pays() == attention.pays()
    assert attention._ratio.cache_info().misses == 1


def test_other_architectures_always_use_it(cache, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert attention.pays()
    assert attention.known_to_pay()
    assert notes(cache) == []


@pytest.mark.parametrize(("asked", "shown"), [(None, "auto"), ("off", "off"), ("on", "on")])
def test_a_loaded_model_says_which(cache, monkeypatch, asked, shown):
    monkeypatch.setattr(attention, "pays", lambda: True)
    model = llmlab.load("nano", engine="llamacpp", name="seen", extra={"flash_attn": asked} if asked else {})
    try:
        assert model.describe()["flash attention"] == shown
    finally:
        model.unload()
