"""lm-eval's tasks on nano, in each engine, against lm-eval's own `hf` model. Skipped where lm-eval isn't installed."""

import json
import math
import random

import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from tests.evaluation.conftest import write_task

pytest.importorskip("lm_eval", reason="pip install 'llmlab[evals]'")
ITEMS = 16


@pytest.fixture(scope="module")
def rolling(tmp_path_factory):
    """A folder with a task of whole texts."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"text": f"Once upon a time there was a {one} who lived by the lake."} for one in ("bear", "fox", "king")]
    metrics = "\n".join(f"  - metric: {name}" for name in ("word_perplexity", "bits_per_byte"))
    return write_task(
        folder,
        "stories",
        rows,
        f"output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{{{text}}}}'\nmetric_list:\n{metrics}",
    )


@pytest.fixture(scope="module")
def expected(rolling):
    """What lm-eval's own model says of nano in float32."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from llmlab.evaluation import tasks
    from llmlab.zoo import path

    found = tasks.find(["countries", "capitals", rolling], [])
    for task in found.tasks.values():
        task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)
    own = HFLM(pretrained=str(path("nano")), dtype="float32", device="cpu", batch_size=1)
    return evaluate(own, {"tasks": dict(found.tasks), "groups": {}}, limit=ITEMS, bootstrap_iters=0)


@pytest.fixture(scope="module", params=["vllm", "llamacpp"])
def exact(request):
    """nano in 32-bit floats."""
    lab = llmlab.Lab()
    if request.param == "vllm":
        yield lab.load("nano", engine="vllm", extra={"dtype": "float32"})
    else:
        kv = {"cache_type_k": "f32", "cache_type_v": "f32"}
        yield lab.load("nano", engine="llamacpp", quant="F32", extra=kv)
    lab.close()


def test_it_agrees_with_lm_evals_own_model(exact, expected, rolling):
    found = llmlab.evaluate(exact, ["countries", "capitals", rolling], limit=ITEMS)
    results = expected["results"]
    assert found["acc"].value == results["countries"]["acc,none"]
    assert found["exact_match"].value == float(results["capitals"]["exact_match,stripped"])
    assert found["word_perplexity"].value == pytest.approx(results["stories"]["word_perplexity,none"], rel=1e-3)
    assert found["bits_per_byte"].value == pytest.approx(results["stories"]["bits_per_byte,none"], rel=1e-3)
    for ours, theirs in zip(found.logged["countries"], expected["samples"]["countries"], strict=True):
        assert ours["arguments"] == theirs["arguments"]
        for one, other in zip(ours["filtered_resps"], theirs["filtered_resps"], strict=True):
            assert one[0] == pytest.approx(other[0], abs=0.02)
            assert one[1] == other[1]
    for ours, theirs in zip(found.logged["capitals"], expected["samples"]["capitals"], strict=True):
        # transformers generates past the task's limit where a generation_config.json has one of its own.
        assert theirs["filtered_resps"][0].startswith(ours["filtered_resps"][0])


def test_every_figure_has_n_and_an_interval(model, rolling):
    found = llmlab.evaluate(model, ["countries", rolling], limit=ITEMS)
    acc, target = found["acc"], found["target_logprob"]
    assert (acc.estimate.n, target.estimate.n) == (ITEMS, ITEMS)
    assert acc.estimate.low < acc.value > 0.5
    assert target.estimate.low < target.value < target.estimate.high < 0
    assert acc.better == target.better == "higher"
    assert found["word_perplexity"].better == "lower"
    assert math.isnan(found["word_perplexity"].estimate.low)  # three items are too few for a bootstrap
    text = repr(found)
    assert "Intervals: 95 %, over items." in text
    assert str(acc.estimate.n) in text
    assert len(found.samples) == ITEMS + 3
    assert set(found.frame.columns) == {"task", "metric", "filter", "value", "low", "high", "n", "better"}
    with pytest.raises(BadInputError, match="countries acc none"):
        found["countries"]


def test_adapters_are_evaluated_and_compared(model):
    base = llmlab.evaluate(model, "countries", limit=40)
    model.add_adapter("pirate", "pirate")
    try:
        pirate = llmlab.evaluate(model, "countries", limit=40, adapter="pirate")
        generated = llmlab.evaluate(model, "capitals", limit=8, adapter="pirate")
        assert llmlab.evaluate(model, "countries", limit=40)["acc"].values == base["acc"].values
    finally:
        model.remove_adapter("pirate")
    contrast = base.compare(pirate)
    (target,) = [one for one in contrast.sentences if "target_logprob" in one]
    assert "with pirate" in target
    assert "on countries target_logprob" in target
    assert "40 items" in target
    assert list(contrast.frame["metric"]) == ["acc", "target_logprob"]
    assert base["target_logprob"].value != pirate["target_logprob"].value
    assert generated.logged["capitals"] != llmlab.evaluate(model, "capitals", limit=8).logged["capitals"]
    with pytest.raises(BadInputError, match="same items"):
        base.compare(llmlab.evaluate(model, "countries", limit=8))
    with pytest.raises(UnknownNameError, match="terse"):
        llmlab.evaluate(model, "countries", limit=2, adapter="terse")


def test_a_local_folder_needs_no_hub(llamacpp, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    settings = "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{c}}'\ndoc_to_target: a\n"
    rows = [{"q": "Cows say", "c": ["moo", "meow"], "a": 0}, {"q": "Cats say", "c": ["moo", "meow"], "a": 1}]
    metrics = "metric_list:\n  - metric: f1\n  - metric: acc"
    folder = write_task(tmp_path / "ours", "animals", rows * 8, settings + metrics)
    found = llmlab.evaluate(llamacpp, folder)
    assert {one.metric for one in found.scores} == {"f1", "acc", "target_logprob"}
    f1 = found["f1"].estimate
    assert (f1.n, f1.low <= f1.value <= f1.high or math.isnan(f1.low)) == (16, True)
    assert llmlab.evaluate(llamacpp, folder / "animals.yaml")["acc"].value == found["acc"].value
    by_name = llmlab.evaluate(llamacpp, "animals", include=[folder], shots=1)
    assert by_name.about["shots"] == 1
    assert by_name.samples["prompt"][0].count("say") == 2
    chat = llmlab.evaluate(llamacpp, folder, chat=True, system="Be kind.", limit=1)
    assert chat.samples["prompt"][0] == llamacpp.render(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Cows say"}]
    )


def test_what_is_wrong_is_said(llamacpp, tmp_path):
    with pytest.raises(UnknownNameError, match="countries"):
        llmlab.evaluate(llamacpp, "contries")
    with pytest.raises(BadInputError, match="no tasks"):
        llmlab.evaluate(llamacpp, tmp_path)
    with pytest.raises(BadInputError, match="There is no task at"):
        llmlab.evaluate(llamacpp, "./nowhere")
    with pytest.raises(BadInputError, match="limit"):
        llmlab.evaluate(llamacpp, "countries", limit=0)
    settings = "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{q}}'\n"
    odd = write_task(tmp_path, "odd", [{"q": "x"}], settings + "generation_kwargs: {num_beams: 4, until: ['.']}")
    with pytest.raises(UnsupportedError, match="num_beams=4"):
        llmlab.evaluate(llamacpp, odd)


def test_it_leaves_random_numbers_alone_and_shows_no_bar_of_its_own(llamacpp, capfd):
    random.seed(5)
    expected = random.random()
    random.seed(5)
    seen = []
    llmlab.evaluate(llamacpp, "capitals", limit=2, progress=lambda phase, share: seen.append((phase, share)))
    assert random.random() == expected
    assert seen[-1] == ("2 requests", 1.0)
    assert capfd.readouterr().err == ""


def test_quants_are_compared_on_tasks(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    options = {"windows": 1, "questions": 2, "speed": False}
    llmlab.compare_quants("nano", ["F16", "Q2_K"], **options)
    found = llmlab.compare_quants("nano", ["F16", "Q2_K"], tasks=["countries"], task_limit=60, **options)
    frame = found.frame
    assert list(frame["countries acc_n"]) == [60, 60]
    assert (frame["countries target_logprob_low"] < frame["countries target_logprob"]).all()
    (said,) = [one for one in found.conclusions if "target_logprob" in one]
    assert said.startswith("Q2_K scores lower than F16 on countries target_logprob")
    assert "60 items" in said
    assert "countries acc" in repr(found)
    # The scores are kept beside the other measurements.
    kept = json.loads((found.folder / "run.json").read_text("utf-8"))["rows"]["F16"]
    assert len(kept["task_scores"]) == 1
    again = llmlab.compare_quants("nano", ["F16", "Q2_K"], **options)
    assert "countries acc" not in again.frame.columns
