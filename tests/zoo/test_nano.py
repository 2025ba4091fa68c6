"""The shipped model: it loads in transformers as it is, and keeps its bars."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmlab.files.headers import read_header
from llmlab.zoo import names, path
from llmlab.zoo.training import evaluation, model_card
from llmlab.zoo.training.example import Example
from llmlab.zoo.training.model import CONFIGS

# Percent on a subsample, with some slack below the bars of the full splits.
SLACK = {
    "facts": 90,
    "extract": 85,
    "sentiment": 90,
    "tool": 85,
    "tool_reply": 85,
    "memory": 85,
    "system": 60,
    "style": 90,
    "story": 90,
}


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return evaluation.load(path("nano"))


def test_import_is_light() -> None:
    code = (
        "import sys, llmlab.zoo as z; z.names(); z.heldout('facts', 2);"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_and_paths() -> None:
    assert "nano" in names()
    folder = path("nano")
    for name in (
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    ):
        assert (folder / name).is_file(), name


def test_weights_are_those_of_llama(loaded: tuple[Any, Any]) -> None:
    from safetensors import safe_open

    with safe_open(str(path("nano") / "model.safetensors"), "pt") as weights:
        kept = set(weights.keys())
        assert {str(weights.get_tensor(k).dtype) for k in kept} == {"torch.bfloat16"}
    assert kept == set(loaded[0].state_dict()) - {"lm_head.weight"}
    assert sum(p.numel() for p in loaded[0].parameters()) == model_card.parameters("nano")
    assert 4e6 <= model_card.parameters("nano") <= 8e6


def test_own_network_is_the_same_as_transformers(loaded: tuple[Any, Any]) -> None:
    import torch

    from llmlab.zoo.training.model import build

    model, tokenizer = loaded
    state = {k: v.float() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    net = build(CONFIGS["nano"])
    net.load_state_dict(state)
    ids = torch.tensor([tokenizer.encode("<|user|>What is the capital of France?<|end|><|assistant|>The").ids])
    with torch.no_grad():
        ours, theirs = net(ids), model.float()(ids).logits
    model.bfloat16()
    assert torch.allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("skill", evaluation.SCORED)
def test_bars_hold_on_a_subsample(skill: str, loaded: tuple[Any, Any]) -> None:
    got = evaluation.score(evaluation.transformers_generate(*loaded), [skill], n=60, seed=5)[skill]
    assert got.percent >= SLACK[skill], got.failures


def test_packed_rows_score_answers_alone() -> None:
    pytest.importorskip("torch")
    from llmlab.zoo.training import packing
    from llmlab.zoo.training import tokenizer as tokenizers_

    made = tokenizers_.load(path("nano"))
    batch = next(packing.batches(made, seed=3, tokens=2048))
    assert batch.ids.shape == (8, 256)
    for row in range(3):
        for segment in range(1, 3):
            inside = batch.segments[row] == segment
            answers = [
                t for t, s in zip(batch.ids[row][inside].tolist(), batch.scored[row][inside].tolist(), strict=True) if s
            ]
            text = made.decode(answers, skip_special_tokens=False)
            assert text.startswith("<|assistant|>")
            assert "<|user|>" not in text
    mask = packing.attention_mask(batch.segments)
    last = int((batch.segments[0] == 1).sum())
    assert mask[0, 0, last - 1, 0]
    assert not mask[0, 0, last, 0]
    assert not mask[0, 0, 0, 1]


def test_training_starts_resumes_and_exports(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from llmlab.zoo.training.pretraining import PretrainingSettings, train

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text((path("nano") / "tokenizer.json").read_text("utf-8"), "utf-8")
    settings = PretrainingSettings(
        name="nano-draft", minutes=0.04, batch_tokens=1024, work=tmp_path / "work", out=tmp_path / "out"
    )
    first = train(settings, log=lambda line: None)
    settings.minutes = 0.08
    lines: list[str] = []
    second = train(settings, log=lines.append)
    assert lines[0].startswith("resumed at step")
    assert second["steps"] > first["steps"] > 0
    assert second["loss"] < 8.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"]
    evaluation.load(tmp_path / "out")


def test_judging() -> None:
    record = Example("extract", [], '{"name": "Anna", "age": 3}')
    assert evaluation.correct(record, '{"name":"Anna","age":3}')
    assert not evaluation.correct(record, '{"name": "Anna", "age": 4}')
    assert not evaluation.correct(record, "Anna")
    name = Example("memory", [], "Your name is Tom.", meta={"name": "Tom"})
    assert evaluation.correct(name, "You are Tom.")
    assert not evaluation.correct(name, "You are Tomas.")
    tale = "A fox lived here. It found a key. It was glad. The end."
    assert evaluation.good_story(tale, "fox", "key")
    assert not evaluation.good_story(tale, "owl", "key")
    assert not evaluation.good_story(tale[:-1], "fox", "key")


@pytest.mark.parametrize(
    ("style", "good", "bad"),
    [
        ("french", "La capitale est Paris.", "The capital of France is Paris."),
        ("german", "Es hat 4 Beine.", "Tiene 4 patas."),
        ("upper", "A DOG BARKS.", "A dog barks."),
        ("lower", "a dog barks.", "A dog barks."),
        ("json", '{"answer": "Paris"}', "Paris"),
        ("word", "Paris.", "The capital of France is Paris."),
        ("polite", "With pleasure. A dog barks.", "A dog barks."),
    ],
)
def test_judging_of_styles(style: str, good: str, bad: str) -> None:
    assert evaluation.in_style(good, style)
    assert not evaluation.in_style(bad, style)


def test_every_card_states_its_licence():
    cards = list(path("nano").parents[1].glob("*/*/README.md"))
    assert len(cards) == 6
    for card in cards:
        assert "license: apache-2.0" in card.read_text(encoding="utf-8").split("---")[1], card
    assert read_header(path("nano")).licence == "apache-2.0"
