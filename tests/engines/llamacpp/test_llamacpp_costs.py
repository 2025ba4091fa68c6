"""The costs of steps of several tokens: measured once per model and machine, and kept in the cache."""

import itertools
import json

import pytest

from llmlab import Lab
from llmlab.engines.llamacpp import attention, costs, options
from llmlab.engines.llamacpp.context import NativeContext
from llmlab.machine import cores


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for measurements, on a machine that is idle, and fast enough for all of them."""
    from llmlab.engines.llamacpp import measured

    monkeypatch.setattr(measured, "_folder", lambda: tmp_path)
    monkeypatch.setattr(costs, "_QUIET", 100.0)
    monkeypatch.setattr(costs, "_SAME", 100.0)
    monkeypatch.setattr(costs, "_SECONDS", 100.0)
    return tmp_path


def load(draft, **extra):
    lab = Lab()
    try:
        model = lab.load(
            "nano", engine="llamacpp", draft=draft, ctx=256, max_concurrency=2, extra={"n_threads": 1, **extra}
        )
        return model.describe()["draft"]
    finally:
        lab.close()


@pytest.mark.parametrize("draft", ["ngram", "nano-draft"])
def test_they_are_measured_once_and_kept(cache, monkeypatch, draft):
    seconds, sizes = costs._seconds, []

    def timed(context, size):
        assert seconds(context, size) > 0
        sizes.append(size)
        return 0.002 + 0.001 * size

    monkeypatch.setattr(costs, "_seconds", timed)
    shown = load(draft)
    assert {1, 4, 8, 16} <= set(sizes) <= set(costs._SIZES)
    (path,) = cache.glob("step-costs-*.json")
    note = json.loads(path.read_text(encoding="utf-8"))
    steps = dict(note["steps"])
    assert steps == {size: round((2 + size) / 3, 2) for size in sizes}
    assert (note["draft"] > 0) == (draft != "ngram")
    assert f"; 4 tokens cost {steps[4]:.1f} single steps" in shown
    monkeypatch.setattr(costs, "_measure", lambda *_: pytest.fail("measured again"))
    assert load(draft) == shown


def test_a_larger_step_than_was_measured_is_measured_again(cache):
    load("ngram", draft_tokens=2)
    (path,) = cache.glob("step-costs-*.json")
    assert max(size for size, _ in json.loads(path.read_text())["steps"]) == 6
    load("ngram")
    assert max(size for size, _ in json.loads(path.read_text())["steps"]) == 32


@pytest.mark.parametrize(
    "note",
    [
        "", "[]", "{}", '{"steps": 3, "draft": 0, "most": 99}', '{"steps": [[4, 1.0]], "draft": 0, "most": 99}',
        '{"steps": [[1, 1.0], [4, -2]], "draft": 0, "most": 99}',
        '{"steps": [[1, 1.0], [4, 2]], "draft": NaN, "most": 99}',
        '{"steps": [[1, 1.0], [8, 3], [4, 2]], "draft": 0, "most": 99}',
        '{"steps": [[1, 1.0], [4, "x"]], "draft": 0, "most": 99}',
        '{"steps": [[1, 1.0], [4]], "draft": 0, "most": 99}',
        '{"steps": [[1, 1.0], [4, 2]], "draft": null, "most": 99}',
        '{"steps": [[1, 1.0], [Infinity, 2]], "draft": 0, "most": 99}',
        '{"steps": [[1, 1.0], [4, 2]], "draft": 0, "most": 1e999}',
        f'{{"steps": [[1, 1.0], [4, 2]], "draft": 1{"0" * 400}, "most": 99}}', "[" * 100_000, "1" * 5000,
    ],
)  # fmt: skip
def test_a_damaged_note_is_measured_again(cache, note):
    load("ngram")
    (path,) = cache.glob("step-costs-*.json")
    path.write_text(note, encoding="utf-8")
    load("ngram")
    assert {1, 4, 8, 16} <= dict(json.loads(path.read_text())["steps"]).keys()


@pytest.mark.parametrize("speed", ["NaN", "1" + "0" * 400, '"1"', "true", "null", "[" * 100_000])
def test_a_damaged_note_about_attention_is_measured_again(cache, monkeypatch, speed):
    monkeypatch.setattr(attention, "_is_x86", lambda: True)
    attention.pays()
    (path,) = cache.glob("flash-attention-*.json")
    path.write_text(f'{{"speed": {speed}}}', encoding="utf-8")
    attention.pays()
    assert 0 < json.loads(path.read_text(encoding="utf-8"))["speed"] < 100


def test_a_load_whose_steps_are_short_shows_no_costs(cache):
    lab = Lab()
    try:
        model = lab.load("nano", draft="ngram", ctx=64, max_concurrency=1, extra={"draft_tokens": 1, "n_threads": 1})
        assert model.describe()["draft"] == "ngram, up to 1 tokens ahead"
    finally:
        lab.close()


def test_on_a_busy_machine_nothing_is_kept(cache, monkeypatch):
    monkeypatch.setattr(costs, "_QUIET", -1.0)
    assert "single steps" in load("ngram")
    assert not list(cache.glob("step-costs-*"))


@pytest.mark.parametrize(("draft", "uneven"), [("ngram", 0), ("nano-draft", 1)])
def test_uneven_steps_of_a_token_are_not_kept(cache, monkeypatch, draft, uneven):
    # After a file of 440 MB was written, a draft's step seemed to take 0.46 single steps (0.11), and was kept.
    seconds, slower, contexts = costs._seconds, itertools.count(1), []

    def timed(context, size):
        contexts.extend([context] if context not in contexts else [])
        return 10.0 / next(slower) ** 2 if contexts.index(context) == uneven and size == 1 else seconds(context, size)

    monkeypatch.setattr(costs, "_SAME", 1.2)
    monkeypatch.setattr(costs, "_seconds", timed)
    assert "single steps" in load(draft)
    assert not list(cache.glob("step-costs-*"))


def test_other_processes_leave_threads_for_the_measurement(cache, monkeypatch):
    # SmolLM2 with two threads on two taken cores: 11 s, and a step of 16 tokens seemed to take 0.2 single ones.
    used = []
    monkeypatch.setattr(options, "default_threads", lambda _bytes: 2)
    monkeypatch.setattr(cores, "allowed", lambda: 2)
    monkeypatch.setattr(cores.Others, "busy", lambda _: 2.0)
    monkeypatch.setattr(NativeContext, "use_threads", lambda _, decode, prompts: used.append((decode, prompts)))
    times = iter([5.0, 1.0] + [0.5, 0.4] * 1000)  # the machine becomes quiet meanwhile
    monkeypatch.setattr(costs, "_seconds", lambda *_: next(times))
    lab = Lab()
    try:
        shown = lab.load("nano", engine="llamacpp", draft="ngram", ctx=256).describe()["draft"]
    finally:
        lab.close()
    assert used == [(1, 1)]
    assert shown.endswith("4 tokens cost 1.0 single steps, 8 1.0, 16 1.0")


def test_a_step_that_fails_ends_the_load_and_leaves_nothing(cache, monkeypatch):
    monkeypatch.setattr(NativeContext, "decode", lambda self, count: -3 if count > 1 else 0)
    with pytest.raises(Exception, match="step of 4 tokens"):
        load("ngram")
    assert not list(cache.glob("step-costs-*"))


def test_the_text_is_the_same_whatever_the_costs(cache, monkeypatch):
    lab = Lab()
    try:
        words = "red blue green amber violet copper silver " * 6
        prompt = f"<|user|>Repeat: {words}<|end|><|assistant|>{words}"
        found = {}
        for name, cheap in (("cheap", 1.01), ("dear", 50.0)):
            fixed = costs.Costs(((1, 1.0), (16, cheap)))
            monkeypatch.setattr(costs, "of_model", lambda *_, fixed=fixed: fixed)
            model = lab.load("nano", engine="llamacpp", draft="ngram", name=name, extra={"n_threads": 1})
            found[name] = model.generate(prompt, raw=True, temperature=0, max_tokens=60, ignore_eos=True)
        assert found["cheap"].text == found["dear"].text
        assert found["cheap"].speculation.drafted > 0 == found["dear"].speculation.drafted
    finally:
        lab.close()
