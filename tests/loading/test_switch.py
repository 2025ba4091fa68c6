"""Switching the quant in place, on the real engines."""

import pytest

from llmlab.errors import DoesNotFitError, LoadError, UnknownNameError, UnsupportedError
from llmlab.files import fit
from llmlab.files.headers import read_header
from llmlab.quant import compatibility

ASK = "What is the capital of France?"


def test_between_two_ggufs(lab, monkeypatch):
    model = lab.load("nano", engine="llamacpp", quant="Q8_0", ctx=1024)
    first = model.generate(ASK, temperature=0)
    assert lab.switch_quant("q4_k_m") is model
    assert (model.quant, model.engine, model.facts.context_length) == ("Q4_K_M", "llamacpp", 1024)
    assert model.loaded
    assert lab.models == {"nano": model}
    assert "Q8_0 → Q4_K_M" in model.reason
    assert model.generate(ASK, temperature=0).text == first.text
    assert model.facts.defaults.temperature == 0.7
    # Between files that are made, nothing is converted, quantized or fetched: a switch is one load (bench/latency.py).
    made = []
    monkeypatch.setattr("llmlab.quant.gguf_cache.write_whole", lambda target, write: made.append(target))
    monkeypatch.setattr("llmlab.loading.retrieval._download", lambda *args: made.append(args))
    for tag in ("Q8_0", "Q4_K_M"):
        assert read_header(lab.switch_quant(tag).path).quant == tag
        assert (model.quant, made) == (tag, [])


def test_a_hand_over_leaves_out_no_field(lab):
    model, other = (lab.load("nano", engine="llamacpp", name=name, ctx=256) for name in ("a", "b"))
    own, given = dict(vars(model)), dict(vars(other))
    model.become(other)
    kept = {name for name, value in vars(model).items() if value is own[name] and value is not given[name]}
    assert kept == {"name", "_buffers", "_counting", "_ids"}
    assert vars(model).keys() == given.keys()
    assert model.loaded
    assert not other.loaded
    assert model.generate(ASK, temperature=0, max_tokens=3).text == "The capital of"


def test_the_same_quant_is_no_reload(lab):
    model = lab.load("nano", engine="llamacpp", quant="Q8_0")
    engine = model._engine
    assert lab.switch_quant("Q8_0") is model
    assert model._engine is engine


WAYS = {"awq": "llmcompressor", "gptq": "llmcompressor", "fp8": "online", "int8": "rounded to nearest"}


def test_across_engines_and_back(lab):
    model = lab.load("nano", engine="llamacpp", quant="Q8_0", ctx=512, max_concurrency=2, extra={"prompt_chunk": 64})
    # vLLM's 4-bit kernels need AVX-512 on x86.
    first, *others = [tag for tag in WAYS if compatibility.support(tag, "vllm", "CPU").ok]
    lab.switch_quant(first)
    assert (model.engine, model.quant) == ("vllm", first)
    assert "llamacpp → vllm" in model.reason
    assert "prompt_chunk" in model.reason
    assert "Paris" in model.generate(ASK, temperature=0).text
    for tag in others:
        lab.switch_quant(tag)
        assert model.quant == tag
        assert WAYS[tag] in model.reason
        assert "Paris" in model.generate(ASK, temperature=0).text
    lab.switch_quant("BF16")
    assert (model.engine, model.quant) == ("llamacpp", "BF16")


def test_what_cannot_be_leaves_the_old_one(lab):
    model = lab.load("nano", engine="llamacpp", quant="Q8_0")
    for tag, error in (("mxfp8", UnsupportedError), ("Q9_9", UnknownNameError), ("IQ1_S", UnsupportedError)):
        with pytest.raises(error):
            lab.switch_quant(tag)
        assert model.quant == "Q8_0"
        assert model.generate(ASK, temperature=0, max_tokens=4).text


def _no_room(monkeypatch, share):
    """Let estimates say that only a part of what is needed is free."""
    real = fit.estimate

    def tight(*args, **options):
        from dataclasses import replace

        found = real(*args, **options)
        return replace(found, free=int(found.total * share))

    monkeypatch.setattr("llmlab.loading.plan.fit.estimate", tight)


def test_both_would_not_fit(lab, monkeypatch):
    model = lab.load("nano", engine="llamacpp", quant="Q8_0")
    _no_room(monkeypatch, 0.8)
    lab.switch_quant("Q4_K_M")
    assert "released first" in model.reason
    assert model.generate(ASK, temperature=0, max_tokens=4).text
    _no_room(monkeypatch, 0.0)
    monkeypatch.setattr(type(model), "memory", lambda _: type("M", (), {"resident": 0, "weights": 0, "kv_cache": 0})())
    with pytest.raises(DoesNotFitError):
        lab.switch_quant("Q8_0")
    assert model.quant == "Q4_K_M"


def test_a_failed_load_brings_the_old_one_back(lab, monkeypatch):
    from llmlab.quant.gguf_cache import cached_path

    model = lab.load("nano", engine="llamacpp", quant="Q8_0")
    lab.switch_quant("Q2_K")
    lab.switch_quant("Q8_0")
    _no_room(monkeypatch, 0.8)
    made = cached_path(model.source.base, "Q2_K")
    data = made.read_bytes()
    real = type(model._engine).open.__func__
    monkeypatch.setattr(
        type(model._engine),
        "open",
        classmethod(lambda cls, plan, **o: _fail() if plan.source.quant == "Q2_K" else real(cls, plan, **o)),
    )
    with pytest.raises(LoadError, match="on purpose"):
        lab.switch_quant("Q2_K")
    assert made.read_bytes() == data
    assert model.quant == "Q8_0"
    assert model.generate(ASK, temperature=0, max_tokens=4).text


def _fail():
    raise LoadError("It fails on purpose.")
