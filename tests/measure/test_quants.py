"""Comparing quants of nano: order, resuming, failures as rows, the token view."""

import html
import json

import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.measure import quants, texts
from llmlab.quant import compatibility

FAST = {"windows": 2, "questions": 4, "speed": False}
ORDER = ["F16", "Q8_0", "Q5_K_M", "Q4_K_M"]
# vLLM's 4-bit kernels need AVX-512 on x86.
CHECKPOINT = "gptq" if compatibility.support("gptq", "vllm", "CPU").ok else "int8"


@pytest.fixture(scope="module")
def comparison():
    return llmlab.compare_quants("nano", [*ORDER, "bf16", CHECKPOINT], windows=4, questions=8)


def test_order_and_columns(comparison):
    frame = comparison.frame
    assert list(frame.index) == [*ORDER, "bf16", CHECKPOINT]
    assert (frame["error"] == "").all()
    kl = frame["kl_mean"]
    assert kl["bf16"] < kl["Q5_K_M"] < kl["Q4_K_M"]
    assert kl["Q8_0"] < kl["Q5_K_M"]
    assert frame["kl_mean"].isna()["F16"]
    assert frame.loc["Q4_K_M", "disk_bytes"] < frame.loc["Q8_0", "disk_bytes"] < frame.loc["F16", "disk_bytes"]
    assert frame["perplexity"].between(5, 100).all()
    assert frame["top1"].drop("F16").between(0.8, 1).all()
    assert (frame["kl_p99"].drop("F16") > kl.drop("F16")).all()
    assert (frame[["ttft_s", "load_s", "prompt_tokens_per_s", "decode_tokens_per_s", "resident_bytes"]] > 0).all().all()
    assert frame["accuracy"].min() > 0.7
    assert ("llmcompressor" if CHECKPOINT == "gptq" else "rounded") in frame.loc[CHECKPOINT, "way"]


def test_it_shows_itself(comparison):
    text = repr(comparison)
    assert "KL mean" in text
    assert "docs/measures.md" in text
    assert "<table" in comparison._repr_html_()
    spec = comparison.plot().to_dict()
    assert len(spec["hconcat"]) == 2


def test_no_figure_is_without_its_interval(comparison):
    frame = comparison.frame
    for name in ("perplexity", "accuracy"):
        assert (frame[f"{name}_low"] <= frame[name]).all()
        assert (frame[f"{name}_high"] >= frame[name]).all()
        assert (frame[f"{name}_high"] > frame[f"{name}_low"]).all()
    others = frame.drop("F16")
    assert (others["kl_mean_high"] > others["kl_mean"]).all()
    assert (frame["questions"] == 8).all()
    for name in ("ttft_s", "prompt_tokens_per_s", "decode_tokens_per_s"):
        assert (frame[f"{name}_low"] <= frame[name]).all()
        assert (frame[f"{name}_high"] >= frame[name]).all()
        assert (frame[f"{name}_high"] > frame[f"{name}_low"]).all()
    assert (frame["rounds"] == 3).all()
    assert "medians of 3 rounds; [low, high]: 75 % intervals" in repr(comparison)
    # Two scores of each variant against the reference, in words.
    assert len(comparison.conclusions) == 2 * (len(frame) - 1)
    assert all("F16" in one and "Holm" in one for one in comparison.conclusions)
    assert "8 questions" in comparison.conclusions[1]
    assert comparison.conclusions[0] in repr(comparison)


def test_the_token_view(comparison):
    seen = comparison.diff(0, b="Q4_K_M")
    assert (seen.a, seen.b) == ("F16", "Q4_K_M")
    assert len(seen.kl) == len(seen.sample.tokens["F16"][0])
    assert seen.sample.prompt in repr(seen).replace("\\n", "\n")
    assert html.escape("<|user|>") in seen._repr_html_()
    assert "<|user|>" not in seen._repr_html_()
    parted = [comparison.diff(i, a="Q4_K_M", b="Q8_0").first for i in range(len(comparison.samples))]
    assert len(parted) == quants.SAMPLES
    with pytest.raises(UnknownNameError, match="Q8_0"):
        comparison.diff(0, b="Q8_1")
    with pytest.raises(BadInputError, match="no prompt 99"):
        comparison.diff(99)


def test_first_divergence_is_found_and_escaped():
    from llmlab.measure.comparison import Diff, Sample

    tokens = {"A": ((1, 2, 3), ("<b>", "x", "y")), "B": ((1, 9), ("<b>", "z"))}
    diff = Diff(Sample("p", {"A": "<b>xy", "B": "<b>z"}, tokens, {"B": (0.0, 2.0, 0.1)}), "A", "B", "A")
    assert diff.first == 1
    assert "»x«" in repr(diff)
    assert "<b>" not in diff._repr_html_()
    assert "KL 2.0000 nats" in diff._repr_html_()


def test_a_second_run_measures_nothing_again(comparison, monkeypatch):
    monkeypatch.setattr(quants, "_measure", lambda *_: pytest.fail("it was measured again"))
    again = llmlab.compare_quants("nano", ORDER, windows=4, questions=8)
    assert again.folder == comparison.folder
    assert again.frame.loc["Q8_0", "kl_mean"] == comparison.frame.loc["Q8_0", "kl_mean"]


def test_an_interrupted_run_goes_on(monkeypatch):
    real, seen = quants._measure, []

    def stops(variant, *rest):
        if variant == "Q4_0":
            raise KeyboardInterrupt
        seen.append(variant)
        return real(variant, *rest)

    monkeypatch.setattr(quants, "_measure", stops)
    with pytest.raises(KeyboardInterrupt):
        llmlab.compare_quants("nano", ["Q8_0", "Q4_0"], data=["a text of some words " * 40], **FAST)
    monkeypatch.setattr(quants, "_measure", lambda variant, *rest: (seen.append(variant), real(variant, *rest))[1])
    done = llmlab.compare_quants("nano", ["Q8_0", "Q4_0"], data=["a text of some words " * 40], **FAST)
    assert seen == ["Q8_0", "Q4_0"]
    assert done.frame.loc["Q4_0", "kl_mean"] > 0
    assert done.frame["accuracy"].isna().all()
    assert json.loads((done.folder / "run.json").read_text())["rows"].keys() == {"Q8_0", "Q4_0"}


def test_a_variant_that_fails_is_a_row():
    done = llmlab.compare_quants("nano", ["Q8_0", "IQ1_S", "mxfp8"], **FAST)
    assert done.frame.loc["Q8_0", "error"] == ""
    assert "importance matrix" in done.frame.loc["IQ1_S", "error"] or "no IQ1_S" in done.frame.loc["IQ1_S", "error"]
    assert "no kernel" in done.frame.loc["mxfp8", "error"]
    assert "mxfp8" in repr(done)
    done.plot().to_dict()


def test_other_tokenizers_are_refused(tmp_path):
    import shutil

    from llmlab import zoo

    other = tmp_path / "other"
    shutil.copytree(zoo.path("nano"), other, ignore=shutil.ignore_patterns("awq", "gptq"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 2040}))
    with pytest.raises(BadInputError, match="their token ids aren't comparable"):
        llmlab.compare_quants("nano", ["Q8_0", str(other)], **FAST)
    # The same size, different ids: detected after the load.
    (other / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-200]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = llmlab.compare_quants("nano", ["F16", str(other)], **FAST)
    assert "different ids" in done.frame.loc[str(other), "error"]


def test_bad_input():
    for variants in ([], ["Q8_0", "q8_0"]):
        with pytest.raises(BadInputError, match="must be unique"):
            llmlab.compare_quants("nano", variants)
    with pytest.raises(UnknownNameError, match="Q4_K_M"):
        llmlab.compare_quants("nano", ["F16", "Q4_K_X"])
    for data in ([], "", [{"text": " "}]):
        with pytest.raises(BadInputError, match="empty"):
            texts.read(data)
    with pytest.raises(BadInputError, match="window"):
        llmlab.compare_quants("nano", ["F16"], window=3)


def test_forms_of_data(tmp_path):
    import pandas as pd
    from datasets import Dataset

    rows = [{"question": "Q?", "answer": "A."}]
    for data in (rows, pd.DataFrame(rows), Dataset.from_list(rows), [{"prompt": "Q?", "completion": "A."}]):
        assert [(item.messages[0].content, item.answer) for item in texts.read(data).items] == [("Q?", "A.")]
    (tmp_path / "a.txt").write_text("hello there")
    assert texts.read(tmp_path / "a.txt").items[0].text == "hello there"
    assert texts.read("some words here").items[0].text == "some words here"
    assert quants.plain(" The  Answer.\n") == "the answer"
