"""The simulation behind docs/scale.md: what must hold of any scheduler."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale", ROOT / "bench" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


def test_one_user_waits_for_the_formula(scale):
    gpu, model = scale.GPUS["H100 SXM"], scale.shape("llama-3.1-8b")
    found = scale.simulate(gpu, model, gpus=1, tp=1, users=1, prompt=1000, answer=300, seconds=600)
    by_hand = (8.03e9 * 2 + 1150 * model.kv_token) / (3.35e12 * 0.65) + 2e-3
    assert found.gap[0] == pytest.approx(by_hand, rel=0.03)
    assert found.done > 10


def test_more_copies_give_more_tokens_and_more_users_wait_longer(scale):
    gpu, model = scale.GPUS["L40S"], scale.shape("llama-3.1-8b")
    one, two = (scale.simulate(gpu, model, gpus=n, tp=1, users=300 * n, seconds=90) for n in (1, 2))
    assert two.tokens_s == pytest.approx(2 * one.tokens_s, rel=0.1)
    few = scale.simulate(gpu, model, gpus=1, tp=1, users=20, seconds=90)
    assert few.ttft[1] < one.ttft[1]
    assert few.gap[0] < one.gap[0]
    # Little's law: users = throughput in requests * (thinking + answering); few users never queue.
    cycle = 20 + few.ttft[0] + 300 * few.gap[0]
    assert few.tokens_s == pytest.approx(20 / cycle * 300, rel=0.2)


def test_what_does_not_fit_is_refused(scale):
    with pytest.raises(ValueError, match="doesn't fit"):
        scale.simulate(scale.GPUS["H100 SXM"], scale.shape("llama-3.3-70b"), gpus=1, tp=1, users=1)


def test_the_page_has_a_row_per_case(scale):
    table = (ROOT / "docs" / "scale.md").read_text().split(scale.START)[1].split(scale.END)[0]
    assert len(table.splitlines()) == len(scale.CASES) + 2
