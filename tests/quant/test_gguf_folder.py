"""Folders expanded from GGUF files: the same weights and token ids, made once, refused if something would be lost."""

import shutil

import numpy as np
import pytest

import llmlab
from llmlab.errors import UnsupportedError
from llmlab.files import token_ids
from llmlab.files.headers import read_header
from llmlab.files.weights import tensors
from llmlab.quant import gguf_folder
from llmlab.quant.gguf_cache import to_gguf
from tests.files.test_headers import gguf_of
from tests.hub.fakes import NANO


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """nano as a Q8_0 file without its folder."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    return shutil.copyfile(to_gguf(NANO, quant="Q8_0"), tmp_path / "alone.gguf")


def test_quantize_to_bf16_expands_a_file(alone):
    made = llmlab.quantize(str(alone), "bf16")
    assert (made.tag, made.path.name) == ("bf16", "alone-bf16")
    assert "alone.gguf (Q8_0) expanded" in made.line
    assert f"%llm load {made.path}" in made.line
    assert read_header(made.path).quant == "bf16"
    got, original = dict(tensors(made.path / "model.safetensors")), dict(tensors(NANO / "model.safetensors"))
    for name, value in original.items():
        if name in got:  # tied weights are stored once
            assert np.abs(got[name] - value).max() <= np.abs(value).max() / 100, name
    assert len(got) >= len(original) - 1
    assert token_ids.differences(token_ids.of_folder(made.path), token_ids.of_folder(NANO)) == []


def test_a_file_is_expanded_once_under_any_name(alone):
    first = gguf_folder.of(read_header(alone), "one")
    assert gguf_folder.of(read_header(alone), "two") == first
    assert llmlab.quantize(str(alone), "bf16").path == first


def test_bf16_of_a_bf16_folder_is_the_folder():
    assert llmlab.quantize("nano", "bf16").path == NANO


def test_a_quantized_folder_is_not_expanded(tmp_path):
    with pytest.raises(UnsupportedError, match="only GGUF files are expanded"):
        llmlab.quantize(str(NANO / "awq"), "bf16")


def test_another_quant_of_a_quantized_file_names_the_command(alone):
    with pytest.raises(UnsupportedError, match=r"already quantized.*--to bf16"):
        llmlab.quantize(str(alone), "Q4_0")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"arch": "granite"}, "its architecture is granite"),
        ({"more": {"llama.rope.scaling.type": "yarn"}}, r"its positions are scaled \(yarn\)"),
        ({"more": {"llama.rope.dimension_count": 4}}, "it rotates 4 of"),
    ],
)
def test_what_a_folder_would_lose_is_refused(tmp_path, keys, says):
    file = gguf_of(tmp_path / "model.gguf", **keys)
    with pytest.raises(UnsupportedError, match=says):
        llmlab.quantize(str(file), "bf16")
