"""Logits that aren't finite: a load and a request fail with the reason, instead of returning empty text."""

import shutil
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmlab import Lab, zoo
from llmlab.engines.llamacpp.scoring import log_softmax
from llmlab.engines.logits import token_logprob
from llmlab.errors import GenerationError, LoadError
from tests.adapters import adapters

ENGINES = ("llamacpp", "vllm")
WAYS = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 1.0, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 1},
    "guided": {"temperature": 0, "regex": "[a-z]{3}"},
    "guided and sampled": {"temperature": 1.0, "seed": 1, "regex": "[a-z]{3}"},
    "with log probabilities": {"temperature": 0, "logprobs": 2},
}


def damaged(folder):
    """Nano with all bytes of its weights set to 0xFF, which is NaN in every float type."""
    shutil.copytree(zoo.path("nano"), folder, ignore=shutil.ignore_patterns("awq", "gptq"))
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start:] = b"\xff" * (len(data) - start)
    file.write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["random", "ties", "masked"])
def test_log_probabilities_are_those_of_the_softmax(kind):
    logits = np.random.default_rng(0).normal(0, 3, 50_000).astype(np.float32)
    if kind == "ties":
        logits = logits.round()
    elif kind == "masked":
        logits[3:] = -np.inf
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum())
    likeliest = np.argsort(-exact, kind="stable")  # of equal tokens the one with the lower id
    for top in (0, 1, 5, 50_000):
        found = token_logprob(logits, 1, top, str, b"")
        assert found.logprob == pytest.approx(exact[1], abs=1e-9)
        assert [one[0] for one in found.top] == likeliest[:top].tolist()
        assert [one[2] for one in found.top] == pytest.approx(exact[likeliest[:top]].tolist(), abs=1e-9)


def test_log_probabilities_of_many_rows_take_no_second_copy():
    rows = np.random.default_rng(0).normal(0, 3, (64, 50_000)).astype(np.float32)
    exact = rows.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    tracemalloc.start()
    log_softmax(rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < rows.nbytes / 10
    assert rows == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_of_nan_do_not_load(lab, tmp_path, engine):
    folder = damaged(tmp_path / "damaged")
    with pytest.raises(LoadError, match="NaN instead of logits") as caught:
        lab.load(folder, engine=engine)
    assert "\n" not in str(caught.value)
    assert "damaged" in str(caught.value)
    assert not lab.models


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failed_load_leaves_the_loaded_models_whole(lab, tmp_path, engine):
    """In vLLM the core that was dropped destroyed the groups of the others: their next step failed."""
    model = lab.load("nano", engine=engine)
    expected = model.generate("Hello", temperature=0, max_tokens=4).text
    with pytest.raises(LoadError, match="NaN instead of logits"):
        lab.load(damaged(tmp_path / "damaged"), engine=engine)
    assert model.generate("Hello", temperature=0, max_tokens=4).text == expected
    assert lab.unload() == ["nano"]


@pytest.fixture(scope="module")
def broken_adapter(tmp_path_factory):
    folder = adapters.make(tmp_path_factory.mktemp("broken") / "nan", 3)
    file = folder / "adapter_model.safetensors"
    found = load_file(file)
    name = sorted(found)[0]
    found[name] = np.full_like(found[name], np.nan)
    save_file(found, file)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_a_request_whose_logits_become_nan_fails_alone(broken_adapter, engine):
    lab = Lab()
    try:
        model = lab.load("nano", engine=engine)
        model.add_adapter("nan", broken_adapter)
        want = model.generate("Hello!", temperature=0, max_tokens=40).token_ids
        for way, options in WAYS.items():
            good = model.stream("Hello!", temperature=0, max_tokens=40)
            bad = model.stream("Hello!", adapter="nan", max_tokens=8, **options)
            good.start()
            with pytest.raises(GenerationError, match="NaN instead of logits"):
                print(way, bad.result())
            assert good.result().token_ids == want
        with pytest.raises(GenerationError, match="NaN instead of logits"):
            print(model.generate("Hello!", adapter="nan", n=3, seed=1, max_tokens=4))
    finally:
        lab.close()
