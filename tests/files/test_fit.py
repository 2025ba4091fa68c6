"""The estimate: its formula on known models, what fits and what would."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from llmlab.errors import DoesNotFitError
from llmlab.files import fit
from llmlab.files.gguf import TensorInfo
from llmlab.files.headers import read_header
from llmlab.machine import memory
from llmlab.machine.memory import Device
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO

GIB = 2**30


def llama(name, *, parameters, layers, hidden, heads, kv_heads, vocab=128256, context=131072, bits=16.0):
    """A header as it would be read from the files of a known model."""
    weights = int(parameters * bits / 8)
    return dataclasses.replace(
        read_header(NANO), name=name, parameters=parameters, layers=layers, hidden=hidden, heads=heads,
        kv_heads=kv_heads, head_dim=hidden // heads, kv_values=layers * kv_heads * 2 * (hidden // heads),
        vocab_size=vocab, context_length=context, weight_bytes=weights,
        tensors=(TensorInfo("all", (parameters,), "BF16", weights),),
    )  # fmt: skip


LLAMA_8B = {"parameters": 8_030_261_248, "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8}
LLAMA_70B = {"parameters": 70_553_706_496, "layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8}
LAPTOP = Device("CPU", 14 * GIB, 16 * GIB)


def test_kv_bytes_are_the_known_ones():
    # Llama 3.1 8B in 16 bits: 128 KiB a token, so 1 GiB for 8,192 tokens (llama.cpp prints "KV self size = 1024 MiB").
    assert fit.kv_bytes(llama("8b", **LLAMA_8B), 8192) == GIB
    assert fit.kv_bytes(llama("8b", **LLAMA_8B), 8192, "q8_0") == pytest.approx(GIB * 17 / 32)
    # nano: llama.cpp prints "CPU KV buffer size = 6.00 MiB" for 2,048 tokens.
    assert fit.kv_bytes(read_header(NANO), 2048) == 6 * 2**20


def test_nano_fits_here():
    for path, engine in ((NANO, "vllm"), (to_gguf(NANO), "llamacpp")):
        found = fit.estimate(read_header(path), engine=engine, max_concurrency=8, gpu=False)
        assert found.fits
        assert found.suggestions == ()
        assert found.kv_tokens == 8 * 2048
        fit.check(found)


def test_70b_does_not_fit_a_laptop():
    found = fit.estimate(llama("big", **LLAMA_70B), engine="llamacpp", context_length=8192, device=LAPTOP)
    assert not found.fits
    with pytest.raises(DoesNotFitError) as caught:
        fit.check(found)
    text = str(caught.value)
    assert "weights 141 GB" in text
    assert "15.0 GB free on CPU" in text
    assert "--force" in text
    assert "\n" not in text


def test_what_would_fit_fits():
    header = llama("8b", **LLAMA_8B, bits=4.9)
    found = fit.estimate(header, engine="llamacpp", device=LAPTOP)
    assert not found.fits
    context = fit.longest_context(header, found, "llamacpp")
    assert f"--ctx {context}" in found.suggestions
    assert fit.estimate(header, engine="llamacpp", context_length=context, device=LAPTOP).fits
    assert not fit.estimate(header, engine="llamacpp", context_length=context + 256, device=LAPTOP).fits


def test_a_smaller_quant_is_suggested_when_it_would_fit():
    header = llama("8b", **LLAMA_8B)
    found = fit.estimate(header, engine="llamacpp", context_length=4096, device=LAPTOP)
    assert not found.fits
    assert "--quant Q8_0" in found.suggestions
    smaller = llama("8b", **LLAMA_8B, bits=8.5008)
    assert fit.estimate(smaller, engine="llamacpp", context_length=4096, device=LAPTOP).fits
    only = fit.estimate(header, engine="llamacpp", context_length=4096, device=LAPTOP, quants=("F16", "Q4_K_M", "Q2_K"))
    assert "--quant Q4_K_M" in only.suggestions


def test_nothing_fits_is_said():
    tiny = Device("CPU", 2**20, 2**30)
    found = fit.estimate(llama("big", **LLAMA_70B), engine="llamacpp", device=tiny)
    assert found.suggestions == ()
    with pytest.raises(DoesNotFitError, match="No context or quant would fit"):
        fit.check(found)


def test_fewer_sequences_are_suggested():
    header = llama("8b", **LLAMA_8B, bits=4.9)
    found = fit.estimate(header, engine="llamacpp", context_length=8192, max_concurrency=16, device=LAPTOP)
    assert "one sequence at a time (max_concurrency=1)" in found.suggestions


def test_memory_of_this_machine_is_sensible():
    here = memory.device(gpu=False)
    assert here.name == "CPU"
    assert 2**28 < here.free <= here.total


def test_a_container_limit_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/box/inner\n")
    inner = tmp_path / "fs/box/inner"
    inner.mkdir(parents=True)
    for folder, limit in ((inner, "max"), (inner.parent, str(8 * GIB))):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{3 * GIB}\n")
        (folder / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    assert memory._cgroup_limit(tmp_path / "fs", own) == (6 * GIB, 8 * GIB)
    (inner.parent / "memory.max").write_text("max\n")
    assert memory._cgroup_limit(tmp_path / "fs", own) is None


def test_a_header_is_read_once_and_needs_no_file_afterwards(tmp_path):
    folder = shutil.copytree(NANO, tmp_path / "nano", ignore=shutil.ignore_patterns("awq", "gptq"))
    file = Path(shutil.copy(to_gguf(NANO), tmp_path / "nano.gguf"))
    for path, engine in ((folder, "vllm"), (file, "llamacpp")):
        header = read_header(path)
        before = fit.estimate(header, engine=engine, context_length=512, device=LAPTOP)
        path.rename(tmp_path / "gone")
        assert fit.estimate(header, engine=engine, context_length=512, device=LAPTOP) == before
        (tmp_path / "gone").rename(path)
        assert read_header(path) == header
