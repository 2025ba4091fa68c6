"""Six interrupts an engine, each after the first cell of a kernel of its own; bench/interrupts.py has hundreds."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from interrupts import interrupts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kernels are forked")
@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_every_thread_can_import_afterwards(engine):
    assert interrupts(engine, 6, seed=7, say=lambda line: None) == [""] * 6
