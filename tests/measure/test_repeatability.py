"""The certificate of repeatability, on nano in both engines."""

import json

import pytest

import llmlab
from llmlab.errors import BadInputError
from llmlab.measure.repeatability import AXES, number_format

PROMPTS = ["What is the capital of France?", "Who are you?", "Tell me a story."]


def test_all_axes(lab, tmp_path):
    model = lab.load("nano", engine="llamacpp")
    model.add_adapter("pirate", "pirate")
    found = llmlab.repeatable(model, PROMPTS, max_tokens=24)
    assert list(dict.fromkeys(row.axis for row in found.rows)) == list(AXES)
    assert all(row.difference is not None for row in found.rows)
    assert not found.faults, found
    assert [row.note for row in found.rows if row.axis == "prefix cache"] == ["3 of 3 from the cache"] * 3
    assert set(found.frame["kind"]) <= {"same", "rounding"}
    assert json.loads(found.save(tmp_path / "c.json").read_text())["rows"][0]["axis"] == "again"
    assert "3 of 3" in repr(found)
    assert "<table" in found._repr_html_()
    assert list(lab.models) == ["nano"]


def test_each_engine_alone(model):
    found = llmlab.repeatable(model, PROMPTS, max_tokens=16, axes=["again", "batch", "adapters"])
    assert not found.faults, found
    if not model.adapters:
        assert "no adapter is attached" in repr(found)


def test_the_control_in_float32(lab):
    """Both engines compute in more than bf16: the answers are the same."""
    model = lab.load("nano", engine="vllm", extra={"dtype": "float32"}, name="exact")
    assert number_format(model) == "f32"
    other = lab.load("nano", engine="llamacpp", name="other")
    texts = [[one.text for one in m.generate(PROMPTS, temperature=0, max_tokens=24)] for m in (model, other)]
    assert texts[0] == texts[1]


def test_an_adapter_that_leaks_is_a_fault(llamacpp, monkeypatch):
    """The wrong adapter in a batch changes the answer by more than rounding."""
    from llmlab.measure import repeatability

    llamacpp.add_adapter("pirate", "pirate")
    try:
        wrong = lambda model, prompts, n: (  # noqa: E731
            model.generate(list(prompts), temperature=0, max_tokens=n, logprobs=5, adapter="pirate"), 0.0, ""
        )  # fmt: skip
        monkeypatch.setitem(repeatability._RUNS, "batch", wrong)
        found = llmlab.repeatable(llamacpp, ["Who are you?"], axes=["batch"])
    finally:
        llamacpp.remove_adapter("pirate")
    assert not found.holds
    assert found.rows[0].difference.kind in ("beyond", "unknown")


def test_what_is_refused(llamacpp):
    with pytest.raises(BadInputError, match="axis 'moon'"):
        llmlab.repeatable(llamacpp, PROMPTS, axes=["moon"])
    with pytest.raises(BadInputError, match="prompts"):
        llmlab.repeatable(llamacpp, [])
