"""Headers of real files, and of broken ones: each broken one is named before an engine would meet it."""

import json
import os
import shutil
import struct
import subprocess
import sys

import pytest

from llmlab.engines import registry
from llmlab.errors import BadInputError, LoadError, UnsupportedError
from llmlab.files import gguf as gguf_file
from llmlab.files.headers import folder_tag, read_header
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO, llama_config, llama_folder, llama_tensors, write_safetensors


@pytest.fixture(scope="module")
def nano_gguf():
    return to_gguf(NANO)


def test_nano_folder():
    header = read_header(NANO)
    assert (header.architecture, header.format, header.quant) == ("LlamaForCausalLM", "safetensors", "bf16")
    assert (header.layers, header.hidden, header.heads, header.kv_heads, header.head_dim) == (6, 256, 4, 2, 64)
    assert (header.vocab_size, header.context_length, header.tied) == (2048, 2048, True)
    assert header.kv_values == 6 * 2 * (64 + 64)
    assert header.parameters == 5_246_208
    assert header.weight_bytes == 2 * header.parameters
    assert "<|assistant|>" in header.chat_template


def test_nano_gguf_says_the_same(nano_gguf):
    folder, gguf = read_header(NANO), read_header(nano_gguf)
    same = ("layers", "hidden", "heads", "kv_heads", "head_dim", "kv_values", "vocab_size", "context_length", "tied")
    assert [getattr(gguf, name) for name in same] == [getattr(folder, name) for name in same]
    assert (gguf.parameters, gguf.quant, gguf.tokenizer) == (folder.parameters, "F16", "gpt2/gpt-2")
    assert gguf.chat_template == folder.chat_template


def test_reader_agrees_with_the_gguf_package(nano_gguf):
    from gguf import GGUFReader

    for path in (nano_gguf, to_gguf(NANO, quant="Q4_K_M")):
        theirs, ours = GGUFReader(path), gguf_file.read(path)
        assert [(t.name, t.dtype, t.bytes) for t in ours.tensors] == [
            (t.name, t.tensor_type.name, t.n_bytes) for t in theirs.tensors
        ]
        for key, value in ours.keys.items():
            contents = theirs.fields[key].contents()
            if isinstance(value, gguf_file.Skipped):
                assert value.length == len(contents)
            else:
                assert (list(value) if isinstance(value, tuple) else value) == contents, key


def test_type_table_agrees_with_the_gguf_package():
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    for number, (name, block, size) in gguf_file._TYPES.items():
        kind = GGMLQuantizationType(number)
        assert (kind.name, GGML_QUANT_SIZES[kind]) == (name, (block, size))


def test_reading_headers_imports_nothing_heavy(nano_gguf):
    code = (
        "import sys; from llmlab.files.headers import read_header; "
        f"read_header({str(nano_gguf)!r}); read_header({str(NANO)!r}); "
        "print([m for m in ('numpy', 'gguf', 'torch', 'huggingface_hub', 'pydantic', 'llama_cpp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sharded_folder(tmp_path):
    folder = llama_folder(tmp_path / "m")
    tensors = llama_tensors()
    names = list(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    (folder / "model.safetensors").unlink()
    for file, held in shards.items():
        write_safetensors(folder / file, {name: tensors[name] for name in held})
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_header(folder).parameters == sum(t.size for t in tensors.values())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(LoadError, match=r"lacks 1 of the 2 weight files.*model-00002"):
        read_header(folder)


def test_index_can_not_point_out_of_the_folder(tmp_path):
    folder = llama_folder(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')
    with pytest.raises(LoadError, match="not a weight index"):
        read_header(folder)


# -- broken GGUF files -------------------------------------------------------------------------


def test_a_header_is_read_again_only_if_the_file_changed(nano_gguf, tmp_path, monkeypatch):
    file, read, parse = tmp_path / "copy.gguf", [], gguf_file.parse
    shutil.copyfile(nano_gguf, file)
    monkeypatch.setattr(gguf_file, "parse", lambda data, path: read.append(path) or parse(data, path))
    first = gguf_file.read(file)
    gguf_file.token_types(file)
    read_header(file)
    assert gguf_file.read(file) == first
    assert read == [file]
    with file.open("r+b") as changed:
        changed.truncate(1000)
    with pytest.raises(LoadError, match="truncated"):
        gguf_file.read(file)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere st_ctime is the time of creation")
def test_a_file_that_is_replaced_is_read_again_though_size_and_time_are_the_same(nano_gguf, tmp_path):
    file = tmp_path / "m.gguf"
    shutil.copy(nano_gguf, file)
    data = file.read_bytes()
    before = file.stat()
    assert gguf_file.read(file).keys["general.architecture"] == "llama"
    assert read_header(file).architecture == "llama"
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of files moves every few milliseconds
        with file.open("r+b") as opened:
            opened.write(data.replace(b"llama", b"cobra", 1)[:4096])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert gguf_file.read(file).keys["general.architecture"] == "cobra"
    with pytest.raises(LoadError):
        read_header(file)


def test_truncated_gguf_says_both_sizes(nano_gguf, tmp_path):
    data = nano_gguf.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data[:-1000])
    with pytest.raises(LoadError) as caught:
        read_header(broken)
    assert f"{len(data) - 1000:,}" in str(caught.value)
    assert "truncated" in str(caught.value)


@pytest.mark.parametrize("length", [0, 3, 6, 20, 100, 5000])
def test_cut_inside_the_header(nano_gguf, tmp_path, length):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(nano_gguf.read_bytes()[:length])
    with pytest.raises(LoadError, match=r"truncated|not a GGUF"):
        read_header(broken)


def test_damaged_headers_never_escape_as_other_errors(nano_gguf, tmp_path):
    import random

    rng, data = random.Random(4), nano_gguf.read_bytes()[:80_000]
    broken = tmp_path / "broken.gguf"
    for _ in range(150):
        at = rng.randrange(8, 3000)
        broken.write_bytes(data[:at] + rng.randbytes(8) + data[at + 8 :])
        with pytest.raises(LoadError):
            read_header(broken)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"GGML" + bytes(60), b"PK\x03\x04" + bytes(60)])
def test_bad_magic(tmp_path, content):
    (tmp_path / "web.gguf").write_bytes(content)
    with pytest.raises(LoadError, match="not a GGUF file"):
        read_header(tmp_path / "web.gguf")


@pytest.mark.parametrize("version", [struct.pack("<I", 1), struct.pack(">I", 3), struct.pack("<I", 99)])
def test_other_versions(tmp_path, version):
    (tmp_path / "v.gguf").write_bytes(b"GGUF" + version + bytes(60))
    with pytest.raises(LoadError, match=r"version|big-endian"):
        read_header(tmp_path / "v.gguf")


def test_missing_part_of_a_split(nano_gguf, tmp_path):
    shutil.copy(nano_gguf, tmp_path / "m-00001-of-00003.gguf")
    shutil.copy(nano_gguf, tmp_path / "m-00003-of-00003.gguf")
    with pytest.raises(LoadError, match=r"m-00002-of-00003\.gguf"):
        read_header(tmp_path / "m-00001-of-00003.gguf")


def gguf_of(path, *, arch="llama", drop="", layers=1, kind="model", more=None):
    """A tiny GGUF by the gguf package; `more` are further keys."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(kind)
    writer.add_block_count(layers)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_context_length(64)
    for key, value in (more or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    names = ["token_embd.weight", "output_norm.weight"]
    block = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    names += [f"blk.{i}.{name}.weight" for i in range(layers) for name in block]
    for name in names:
        if name != drop:
            writer.add_tensor(name, np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_with_a_missing_tensor(tmp_path):
    assert read_header(gguf_of(tmp_path / "whole.gguf")).layers == 1
    with pytest.raises(LoadError, match=r"has no tensor 'blk\.0\.ffn_down\.weight'"):
        read_header(gguf_of(tmp_path / "less.gguf", drop="blk.0.ffn_down.weight"))


def test_adapter_file_is_no_model(tmp_path):
    with pytest.raises(LoadError, match=r"not a model; its type is .adapter."):
        read_header(gguf_of(tmp_path / "lora.gguf", kind="adapter"))


# -- broken folders ----------------------------------------------------------------------------


def test_missing_path():
    with pytest.raises(BadInputError, match="no file or folder"):
        read_header("/nowhere/at/all")


def test_folder_without_config(tmp_path):
    folder = llama_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    with pytest.raises(LoadError, match=r"no config\.json"):
        read_header(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not valid JSON"), ("[]", "must hold a JSON object"), ("{}", "has no architecture")],
)
def test_bad_config(tmp_path, text, says):
    folder = llama_folder(tmp_path / "m")
    (folder / "config.json").write_text(text)
    with pytest.raises(LoadError, match=says):
        read_header(folder)


def test_folder_without_weights(tmp_path):
    folder = llama_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(LoadError, match="no weights"):
        read_header(folder)


def test_pickles_are_refused(tmp_path):
    folder = llama_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedError, match="pickle"):
        read_header(folder)


@pytest.mark.parametrize(
    "gone", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
def test_folder_with_a_missing_tensor(tmp_path, gone):
    folder = llama_folder(tmp_path / "m")
    tensors = llama_tensors()
    del tensors[gone]
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(LoadError, match=f"has no tensor '{gone}'"):
        read_header(folder)


def test_missing_output_layer_counts_only_when_it_is_not_tied(tmp_path):
    folder = llama_folder(tmp_path / "m", config=llama_config(tie_word_embeddings=False))
    with pytest.raises(LoadError, match=r"lm_head\.weight"):
        read_header(folder)


def test_truncated_safetensors(tmp_path):
    folder = llama_folder(tmp_path / "m")
    data = (folder / "model.safetensors").read_bytes()
    for cut in (len(data) - 10, 200, 4):
        (folder / "model.safetensors").write_bytes(data[:cut])
        with pytest.raises(LoadError, match=r"truncated|not a safetensors file") as caught:
            read_header(folder)
    (folder / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(LoadError) as caught:
        read_header(folder)
    assert f"{len(data):,}" in str(caught.value)
    assert f"{len(data) - 10:,}" in str(caught.value)


# -- tags and architectures ----------------------------------------------------------------------


def compressed(**weights):
    """What llmcompressor writes into config.json."""
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


@pytest.mark.parametrize(
    ("quantization", "tag"),
    [
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        (compressed(type="float", num_bits=8), "fp8"),
        (compressed(type="int", num_bits=8), "int8"),
        (compressed(type="int", num_bits=4, symmetric=True), "gptq"),
        (compressed(type="int", num_bits=4, symmetric=False), "awq"),
        ({"quant_method": "compressed-tensors", "config_groups": {"FP8": ["Linear"]}}, "mixed"),
    ],
)
def test_quantized_folder_tags(quantization, tag):
    assert folder_tag({"quantization_config": quantization}) == tag


def test_architectures_are_asked_of_the_installed_engines():
    llamacpp, vllm = registry.declared("llamacpp"), registry.declared("vllm")
    assert llamacpp.knows("llama")
    assert llamacpp.knows("qwen3")
    assert llamacpp.knows("nosucharch") is False
    assert vllm.knows("LlamaForCausalLM")
    assert vllm.knows("NoSuchForCausalLM") is False


def test_unknown_architecture_is_refused(tmp_path):
    header = read_header(gguf_of(tmp_path / "odd.gguf", arch="nosucharch"))
    with pytest.raises(UnsupportedError, match="doesn't support the architecture 'nosucharch'"):
        registry.check_architecture(header, "llamacpp")
