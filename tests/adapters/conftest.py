"""Eight random adapters for nano, and nano in each engine with them attached (vLLM: two slots, 32-bit floats)."""

import warnings

import pytest

from llmlab import Lab
from tests.adapters import adapters

NAMES = tuple("abcdefgh")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {n: adapters.make(root / n, seed, rank=4 if seed % 2 else 8) for seed, n in enumerate(NAMES)}


@pytest.fixture(scope="session")
def lora_lab(folders):
    """In 32-bit floats, so that the order of additions doesn't decide between tied tokens."""
    lab = Lab()
    lab.load("nano", engine="llamacpp", name="llamacpp")
    lab.load("nano", engine="vllm", name="vllm", extra={"max_loras": 2, "dtype": "float32"})
    for model in lab.models.values():
        for name, folder in folders.items():
            model.add_adapter(name, folder)
    yield lab
    lab.close()


@pytest.fixture(params=("llamacpp", "vllm"))
def tuned(request, lora_lab):
    """nano with eight adapters, in each engine in turn; vLLM on the CPU takes two of them per step."""
    model = lora_lab.models[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield model
    model.use_adapter(None)
