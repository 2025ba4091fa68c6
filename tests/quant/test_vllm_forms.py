"""nano's forms for vLLM (shipped, online, rounded), and what can't be made."""

import json
import shutil

import numpy as np
import pytest

import llmlab
from llmlab import zoo
from llmlab.errors import BadInputError, LoadError, UnsupportedError
from llmlab.files import weights
from llmlab.files.headers import read_header
from llmlab.hub.spec import parse
from llmlab.quant import checkpoints, gguf_cache, int8, vllm_forms
from llmlab.quant.recipes import make


@pytest.fixture(scope="module")
def header():
    return read_header(zoo.path("nano"))


def test_nano_ships_awq_and_gptq_made_of_its_own_weights(header):
    for tag in ("awq", "gptq"):
        place = vllm_forms.checkpoint(header, tag)
        assert place is not None, f"nano's {tag} form was made from other weights: run scripts/make_nano_quants.py"
        assert place.parent == zoo.path("nano")
        assert read_header(place).quant == tag
        assert read_header(place).weight_bytes < 4e6


def test_a_checkpoint_of_other_weights_is_not_taken(tmp_path, header):
    copy = tmp_path / "nano"
    shutil.copytree(zoo.path("nano"), copy)
    note = copy / "awq" / "llmlab.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "base": "0" * 64}))
    assert vllm_forms.checkpoint(read_header(copy), "awq") is None
    assert vllm_forms.checkpoint(read_header(copy), "gptq") is not None


def test_rounded_int8_is_within_half_a_step(tmp_path, header):
    int8.write(header, tmp_path)
    made = read_header(tmp_path)
    assert made.quant == "int8"
    written = {t.name: t for t in made.tensors}
    before = dict(weights.tensors(header.files[0]))
    name = "model.layers.0.mlp.up_proj.weight"
    start, entries = weights._entries(tmp_path / "model.safetensors")
    info = dict(entries)
    raw = (tmp_path / "model.safetensors").read_bytes()

    def data(key, kind):
        low, high = info[key]["data_offsets"]
        return np.frombuffer(raw[start + low : start + high], dtype=kind).reshape(info[key]["shape"])

    scale = data(f"{name}_scale", "<f4")
    error = np.abs(data(name, "i1") * scale - np.asarray(before[name], np.float32))
    assert written[name].dtype == "I8"
    assert float((error / scale).max()) <= 0.5001
    # Tensors that aren't quantized are unchanged, bit for bit.
    norm = "model.norm.weight"
    kept = (data(norm, "<u2").astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(kept, before[norm])


def test_a_quantized_checkpoint_has_no_forms():
    assert vllm_forms.of(parse("nano"), read_header(zoo.path("nano") / "awq")) == {}


def test_a_mixture_is_not_rounded(header):
    from dataclasses import replace

    mixture = replace(header, metadata={**header.metadata, "num_local_experts": 8})
    assert vllm_forms.of(parse("nano"), mixture)["int8"].online == "int8_per_channel_weight_only"


def test_calibration_that_is_empty_is_refused_before_anything_is_installed(header, monkeypatch):
    monkeypatch.setattr(checkpoints, "environment", lambda *_: pytest.fail("an environment was made"))
    with pytest.raises(BadInputError, match="empty"):
        checkpoints.quantize(header, "awq", [])
    with pytest.raises(BadInputError, match="empty"):
        llmlab.quantize("nano", "gptq", data=[])
    with pytest.raises(BadInputError, match="empty"):
        llmlab.quantize("nano", "Q4_K_M", imatrix="  ")


def test_groups_that_the_rows_do_not_divide(header):
    from dataclasses import replace

    def rows_of(length):
        shaped = (
            replace(t, shape=(t.shape[0], length)) if t.name.endswith("up_proj.weight") else t for t in header.tensors
        )
        return replace(header, tensors=tuple(shaped))

    with pytest.raises(UnsupportedError, match=r"groups of 32 weights or more, but the rows of .*up_proj"):
        checkpoints.check(rows_of(200), "awq")
    # SmolLM2-135M has rows of 576.
    sizes = {128: 128, 576: 64, 96: 32}
    for length, size in sizes.items():
        checkpoints.check(rows_of(length), "gptq")
        assert checkpoints.group_size(rows_of(length)) == size


def test_k_quants_need_a_row_of_256(header, tmp_path, monkeypatch):
    from dataclasses import replace

    odd = tuple(replace(t, shape=(*t.shape[:-1], 96)) if len(t.shape) == 2 else t for t in header.tensors)
    with pytest.raises(UnsupportedError, match="blocks of 256"):
        make(replace(header, tensors=odd), "Q4_K_M")


def test_a_full_disk_leaves_no_partial_file(header, monkeypatch):
    from llmlab.quant import gguf_quantizer

    def full(_source, target, *_args, **_options):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_quantizer, "quantize_file", full)
    target = gguf_cache.cached_path(header.path, "Q3_K_L")
    with pytest.raises(LoadError, match="is full"):
        make(header, "Q3_K_L")
    assert not target.exists()
    assert not list(target.parent.glob(".*.part"))


def test_quantize_makes_and_finds_again():
    made = llmlab.quantize("nano", "Q5_K_M")
    assert made.tag == "Q5_K_M"
    assert read_header(made.path).quant == "Q5_K_M"
    assert made.bytes < made.before
    assert llmlab.quantize("nano", "q5_k_m").path == made.path


def test_wrong_options_are_refused():
    with pytest.raises(BadInputError, match="imatrix"):
        llmlab.quantize("nano", "Q4_K_M", data=["x"])
    with pytest.raises(BadInputError, match="importance matrix"):
        llmlab.quantize("nano", "awq", imatrix="text")
    with pytest.raises(UnsupportedError, match="Made here"):
        llmlab.quantize("nano", "mxfp4")
