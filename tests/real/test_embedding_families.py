"""ModernBERT and Qwen3-Embedding with random weights, on both engines, against transformers in float32."""

import subprocess

import numpy as np
import pytest

from tests.conftest import ENGINES
from tests.real import embedders

TEXTS = [
    "The cat sits on the mat.",
    "Quarterly revenue grew by 12 %.",
    "naïve 東京 🐈",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen " * 2,
]


@pytest.fixture(scope="module")
def lab():
    from llmlab import Lab

    made = Lab()
    yield made
    made.close()


def reference(folder, pooled):
    """What transformers computes: the state of the token that a text's vector is, normalized."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    rows = np.stack([state[0 if pooled == "cls" else -1].numpy() for state in states])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("make", "pooled"), [(embedders.modernbert, "cls"), (embedders.qwen3, "last")])
def test_vectors_are_those_of_transformers(lab, make, pooled):
    try:
        folder = make()
        paths = {"vllm": folder, "llamacpp": embedders.gguf(folder)}
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"its files can't be fetched or made: {error}")
    expected = reference(folder, pooled)
    assert expected[0] @ expected[1] < 0.99  # different texts have different vectors
    for engine in ENGINES:
        extra = {"dtype": "float32"} if engine == "vllm" else None
        model = lab.load(str(paths[engine]), engine=engine, name=f"{make.__name__}-{engine}", extra=extra)
        assert (model.embed(TEXTS) * expected).sum(1) == pytest.approx(1, abs=1e-3), engine
        lab.unload(model.name)
