"""Real tuning runs on nano: learning, keeping the best weights, stopping, refusing, attaching and merging."""

from __future__ import annotations

import json
import random
import shutil

import pytest

import llmlab
from llmlab import zoo
from llmlab.adapters import library
from llmlab.errors import BadInputError, Interrupted, TuneError, UnsupportedError
from llmlab.quant import gguf_folder
from llmlab.training import merging, run
from llmlab.training.commands import base_folder
from llmlab.training.commands import merge as merge_on
from llmlab.training.commands import tune as tune_on
from llmlab.zoo.training import adapters_data

QUESTIONS = ["What is the capital of France?", "What sound does a dog make?", "What color is snow?"]
QUICK = {"rank": 4, "batch_size": 16, "epochs": 1, "lr": 6e-3, "evals": 4, "heldout": 0.05}


@pytest.fixture(scope="module")
def bench():
    """A lab with nano in llama.cpp, and an adapter tuned on it."""
    lab = llmlab.Lab()
    lab.load("nano", engine="llamacpp")
    steps = []
    rows = adapters_data.training("terse", 480, seed=1)
    tuned = tune_on(lab, rows, name="short", progress=steps.append, **QUICK)
    yield lab, tuned, steps
    lab.close()


def test_tuning_teaches_and_attaches(bench):
    lab, tuned, steps = bench
    model = lab.current
    assert tuned.attached == "nano"
    assert "short" in model.adapters
    assert tuned.heldout < 0.5 * tuned.heldout_before
    plain = model.generate(QUESTIONS, temperature=0)
    short = model.generate(QUESTIONS, temperature=0, adapter="short")
    assert not any(adapters_data.in_manner("terse", one.text) for one in plain)
    assert all(adapters_data.in_manner("terse", one.text) for one in short)
    assert [one.step for one in steps if one.phase == "training"] == list(range(tuned.steps + 1))
    assert library.find("short").resolve() == tuned.path
    assert "held-out loss" in repr(tuned)


def test_the_same_adapter_works_in_vllm(bench, vllm):
    _, tuned, _ = bench
    vllm.add_adapter("short", tuned.path)
    try:
        said = vllm.generate(QUESTIONS, temperature=0, adapter="short")
        assert all(adapters_data.in_manner("terse", one.text) for one in said)
    finally:
        vllm.remove_adapter("short")


def test_the_folder_is_a_peft_adapter_with_a_card(bench):
    import peft
    from transformers import AutoModelForCausalLM

    _, tuned, _ = bench
    names = {file.name for file in tuned.path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md", "training.json"}
    card = (tuned.path / "README.md").read_text()
    figures = json.loads((tuned.path / "training.json").read_text())
    for part in (tuned.data_digest[:16], tuned.base_digest[:16], f"{tuned.heldout:.4f}", "| lr | 0.006 |"):
        assert part in card
    assert figures["data_digest"] == tuned.data_digest
    assert len(figures["curve"]) == tuned.steps + 1
    config = json.loads((tuned.path / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, "nano")
    model = AutoModelForCausalLM.from_pretrained(str(zoo.path("nano")))
    peft.PeftModel.from_pretrained(model, str(tuned.path))


def test_a_seed_repeats_a_run_and_leaves_the_users_numbers_alone(tmp_path):
    import numpy as np
    import torch

    rows = adapters_data.training("terse", 32)
    settings = run.TrainingSettings(rank=2, epochs=2, batch_size=16, seed=7)

    def draw():
        return random.random(), np.random.random(), float(torch.rand(1))  # noqa: NPY002

    def seed():
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    made = [run.tune(zoo.path("nano"), rows, name="x", out=tmp_path / str(i), settings=settings) for i in range(2)]
    assert draw() == expected
    weights = [(one.path / "adapter_model.safetensors").read_bytes() for one in made]
    assert weights[0] == weights[1]
    assert made[0].curve == made[1].curve


def _run(tmp_path, rows, progress=None, base=None, **options):
    settings = run.TrainingSettings(**{"rank": 2, "batch_size": 16, **options})
    return run.tune(base or zoo.path("nano"), rows, name="x", out=tmp_path / "x", settings=settings, progress=progress)


def test_an_interrupt_keeps_the_best_so_far(tmp_path):
    def stop_at(step):
        def progress(now):
            if now.phase == "training" and now.step == step:
                raise KeyboardInterrupt

        return progress

    rows = adapters_data.training("terse", 64)
    kept = _run(tmp_path, rows, stop_at(3), epochs=50, evals=100)
    assert (kept.stopped, kept.steps) == ("interrupted", 3)
    assert (kept.path / "adapter_model.safetensors").is_file()
    assert "interrupted" in repr(kept)
    shutil.rmtree(kept.path)
    for step in (0,):
        with pytest.raises(Interrupted):
            _run(tmp_path, rows, stop_at(step))
    assert list(tmp_path.iterdir()) == []


def test_it_stops_early_and_keeps_the_best_weights(tmp_path):
    import datasets

    # The held-out rows contradict the training rows, so their loss must rise.
    train = [{"prompt": f"What is {n} plus {n}?", "completion": "Never ask me that again!"} for n in range(64)]
    held = [{"prompt": f"What is the capital of {c}?", "completion": f"The capital of {c} is {r}."}
            for c, r in (("France", "Paris"), ("Spain", "Madrid"), ("Italy", "Rome"))]  # fmt: skip
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(train), test=datasets.Dataset.from_list(held))
    tuned = _run(tmp_path, splits, epochs=20, lr=5e-3, patience=2, evals=40)
    assert tuned.stopped == "early"
    assert tuned.steps < 80
    measured = {point.step: point.heldout for point in tuned.curve if point.heldout is not None and point.step}
    assert tuned.heldout == min(measured.values()) == measured[tuned.best_step]
    assert list(measured.values())[-1] > tuned.heldout


@pytest.mark.parametrize("heldout", [0.2, 0.0])
def test_a_loss_that_is_no_number_stops_and_keeps_nothing(tmp_path, heldout):
    import torch
    from safetensors.torch import load_file, save_file

    base = tmp_path / "broken"
    shutil.copytree(zoo.path("nano"), base)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    rows = adapters_data.training("terse", 32)
    with pytest.raises(TuneError, match=r"NaN.*nothing was kept.*--lr"):
        _run(tmp_path, rows, base=base, heldout=heldout)
    assert not (tmp_path / "x").exists()


def test_bad_input_is_refused_before_anything_is_trained(bench, tmp_path):
    lab, _, _ = bench
    rows = adapters_data.training("terse", 16)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    refused = [
        ({"name": "a b"}, "can't be called"),
        ({"name": "none"}, "can't be called"),
        ({"name": "x", "rnk": 4}, "Did you mean 'rank'"),
        ({"name": "x", "rank": 0}, "rank must be"),
        ({"name": "x", "lr": -1}, "lr must be"),
        ({"name": "x", "heldout": 1}, "heldout must be"),
        ({"name": "x", "model": "other"}, "Unknown loaded model"),
        ({"name": "x", "out": mine}, "isn't an adapter from llmlab"),
    ]
    for options, says in refused:
        with pytest.raises(BadInputError, match=says):
            tune_on(lab, rows, **options)
    with pytest.raises(BadInputError, match="assistant turn"):
        tune_on(lab, [{"messages": [{"role": "user", "content": "Hi"}]}], name="x")
    assert (mine / "thesis.txt").read_text() == "precious"
    assert library.find("x") is None


def test_a_gguf_alone_is_expanded_to_be_tuned(bench, tmp_path, monkeypatch):
    lab, _, _ = bench
    file = shutil.copyfile(lab.current.path, tmp_path / "alone.gguf")
    model = lab.load(str(file), name="alone")
    steps = []
    try:
        rows = adapters_data.training("terse", 16)
        tuned = tune_on(lab, rows, name="x", model=model, epochs=1, out=tmp_path / "x", progress=steps.append)
        assert tuned.attached == "alone"
        assert f"alone.gguf (F16) expanded to 16 bits: {base_folder(model)}" in "".join(tuned.notes)
        assert "dequantize" in {step.phase for step in steps}

        def refuse(*_args):
            raise UnsupportedError("alone.gguf can't be expanded to a folder: it is split into 2 files.")

        monkeypatch.setattr(gguf_folder, "of", refuse)
        with pytest.raises(BadInputError, match=r"GGUF file .*split into 2 files.*original Hugging Face folder"):
            tune_on(lab, rows, name="x", model=model)
    finally:
        lab.unload("alone")
        lab.use("nano")
    assert base_folder(lab.current) == zoo.path("nano")


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_a_merged_model_says_what_the_adapter_says(bench, engine):
    lab, _, _ = bench
    model = lab.get("nano")
    made = merge_on(lab, "short", name="nano-short", model="nano")
    assert made.path == (merging.models_dir() / "nano-short").resolve()
    with_adapter = [one.text for one in model.generate(QUESTIONS, temperature=0, adapter="short")]
    merged = lab.load("nano-short", engine=engine, name="merged")
    try:
        said = [one.text for one in merged.generate(QUESTIONS, temperature=0)]
    finally:
        lab.unload("merged")
        lab.use("nano")
    assert said == with_adapter


def test_merge_refuses_a_name_that_is_taken(bench):
    lab, _, _ = bench
    with pytest.raises(BadInputError, match="already is a model called 'nano'"):
        merge_on(lab, "short", name="nano", model="nano")
    with pytest.raises(BadInputError, match="Did you mean 'short'"):
        merge_on(lab, "shor", name="y", model="nano")
