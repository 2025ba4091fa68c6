"""GGUF files converted from folders: correct values, complete or absent, converted once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llmlab.errors import LoadError, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.files.weights import tensors
from llmlab.quant import gguf_cache as making
from llmlab.quant.gguf_cache import cached_path, to_gguf
from tests.hub.fakes import NANO, llama_config, llama_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(path):
    from gguf import GGUFReader

    return GGUFReader(path)


def values(path):
    from gguf.quants import dequantize

    return {t.name: np.asarray(dequantize(t.data, t.tensor_type), np.float32) for t in read(path).tensors}


def test_values_are_the_models_own(cache):
    made, source = values(to_gguf(NANO, quant="F32")), dict(tensors(NANO / "model.safetensors"))
    assert len(made) == len(source) == 56
    assert np.array_equal(made["token_embd.weight"], source["model.embed_tokens.weight"])
    assert np.array_equal(made["blk.3.ffn_down.weight"], source["model.layers.3.mlp.down_proj.weight"])
    # Query and key rows are interleaved: dimension i of a head's first half, then of its second half.
    for ours, theirs, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        original = source[f"model.layers.5.self_attn.{theirs}.weight"].reshape(heads, 64, 256)
        ordered = made[f"blk.5.{ours}.weight"].reshape(heads, 64, 256)
        for half in (0, 1):
            assert np.array_equal(ordered[:, half::2], original[:, half * 32 : (half + 1) * 32])


def test_half_precision_is_the_nearest(cache):
    exact, half, brain = (values(to_gguf(NANO, quant=q)) for q in ("F32", "F16", "BF16"))
    for name, value in exact.items():
        assert np.array_equal(half[name], value if value.ndim == 1 else value.astype(np.float16).astype(np.float32))
        assert np.array_equal(brain[name], value)  # nano's weights are bfloat16
    kinds = {t.name: t.tensor_type.name for t in read(to_gguf(NANO)).tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == "F32"


def test_keys(cache):
    fields = read(to_gguf(NANO)).fields
    keys = {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}
    assert keys["general.architecture"] == "llama"
    assert keys["tokenizer.ggml.model"] == "gpt2"
    assert keys["tokenizer.ggml.pre"] == "gpt-2"
    assert keys["tokenizer.ggml.eos_token_id"] == 5
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert keys["tokenizer.chat_template"] == (NANO / "chat_template.jinja").read_text()
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.token_type"]) == 2048
    wanted = json.loads((NANO / "generation_config.json").read_text())
    assert keys["general.sampling.temp"] == pytest.approx(wanted["temperature"])
    assert keys["general.sampling.top_p"] == pytest.approx(wanted["top_p"])


@pytest.mark.parametrize("quant", ["Q8_0", "Q5_K_M", "Q4_K_M"])
def test_quantized_by_llama_cpp(cache, quant):
    seen = []
    path = to_gguf(NANO, quant=quant.lower(), progress=lambda phase, part: seen.append((phase, part)))
    header = read_header(path)
    assert header.quant == quant
    assert {phase for phase, _ in seen} == {"convert", "quantize"}
    assert seen[-1] == ("quantize", 1.0)
    exact, rough = values(to_gguf(NANO, quant="F32")), values(path)
    error = {n: np.linalg.norm(rough[n] - v) / np.linalg.norm(v) for n, v in exact.items() if v.ndim == 2}
    assert max(error.values()) < {"Q8_0": 0.01, "Q5_K_M": 0.06, "Q4_K_M": 0.12}[quant]
    assert all(np.array_equal(rough[n], v) for n, v in exact.items() if v.ndim == 1)


def test_made_once(cache, monkeypatch):
    first = to_gguf(NANO)
    stamp = first.stat().st_mtime_ns
    assert to_gguf(NANO, quant="f16") == first
    assert first.stat().st_mtime_ns == stamp
    assert [p.name for p in first.parent.iterdir()] == ["nano-F16.gguf"]


def test_another_content_is_another_file(cache, tmp_path):
    folder = llama_folder(tmp_path / "m")
    first = to_gguf(folder)
    assert read_header(first).metadata["general.sampling.temp"] == pytest.approx(0.7)
    (folder / "generation_config.json").write_text('{"temperature": 0.25}')
    second = to_gguf(folder)
    assert second != first
    assert read_header(second).metadata["general.sampling.temp"] == 0.25
    llama_folder(folder, seed=1)
    assert cached_path(folder, "F16") not in (first, second)


def test_untied_and_biased_and_half_precision_folders(cache, tmp_path):
    config = llama_config(tie_word_embeddings=False, attention_bias=True)
    folder = llama_folder(tmp_path / "m", config=config, dtype="F16", tied=False, bias=True)
    names = {t.name for t in read_header(to_gguf(folder)).tensors}
    assert {"output.weight", "blk.0.attn_q.bias"} <= names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["FalconForCausalLM"]}, "can't convert FalconForCausalLM"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rotary scaling 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rotary scaling 'linear'"),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantized"),
    ],
)
def test_unsupported_folders_are_refused(cache, tmp_path, change, says):
    folder = llama_folder(tmp_path / "m", config=llama_config(**change))
    with pytest.raises(UnsupportedError, match=says):
        to_gguf(folder)
    assert not list(cache.rglob("*.gguf"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.update(pre_tokenizer={"type": "Metaspace"}), "Metaspace, not ByteLevel"),
        (lambda t: t["pre_tokenizer"].update(use_regex=False), "the GPT-2 or SmolLM split"),
        (lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "the GPT-2 or SmolLM split"),
        (lambda t: t.update(normalizer={"type": "NFC"}), "normalizes text first"),
        (lambda t: t["model"].update(type="Unigram"), "Unigram"),
        (lambda t: t["model"].update(byte_fallback=True), "plain byte-level BPE"),
        (lambda t: t["added_tokens"][1].update(lstrip=True), "strips the text around it"),
    ],
)
def test_other_tokenizers_are_refused(cache, tmp_path, change, says):
    folder = llama_folder(tmp_path / "m")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UnsupportedError, match=says):
        to_gguf(folder)
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_tokenizer_of_another_model_is_reported(cache, tmp_path):
    folder = llama_folder(tmp_path / "m", config=llama_config(vocab_size=1000), vocab=1000)
    with pytest.raises(LoadError, match=r"token id 2047.*1000 rows"):
        to_gguf(folder)


def test_missing_tokenizer(cache, tmp_path):
    folder = llama_folder(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match=r"no tokenizer\.json"):
        to_gguf(folder)


def test_full_disk_is_reported_before_and_while_writing(cache, tmp_path, monkeypatch):
    folder = llama_folder(tmp_path / "m")
    with monkeypatch.context() as patched:
        usage = shutil.disk_usage(tmp_path)
        patched.setattr(making.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(LoadError, match="MB free"):
            to_gguf(folder)

    def fails(*_):
        raise OSError(28, "No space left on device")

    from llmlab.quant import gguf_writer

    with monkeypatch.context() as patched:
        patched.setattr(gguf_writer, "_permuted", fails)
        with pytest.raises(LoadError, match="is full"):
            to_gguf(folder)
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_two_processes_at_once(tmp_path):
    folder = llama_folder(tmp_path / "m", vocab=2048, layers=2)
    # Both have finished their imports before either starts to write.
    code = (
        "import sys; from llmlab.quant.gguf_cache import to_gguf; import gguf, numpy; print('ready', flush=True); "
        "sys.stdin.readline(); print(to_gguf(sys.argv[1], quant='Q8_0'))"
    )
    environment = os.environ | {"LLMLAB_CACHE": str(tmp_path / "cache")}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    paths = {Path(worker.communicate(timeout=240)[0].strip()) for worker in workers}
    assert all(worker.returncode == 0 for worker in workers)
    assert len(paths) == 1
    path = paths.pop()
    assert read_header(path).quant == "Q8_0"
    assert sorted(p.name for p in (tmp_path / "cache/gguf").rglob("*.*") if p.is_file()) == [
        "m-F16.gguf",
        "m-Q8_0.gguf",
    ]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt_while_quantizing_leaves_nothing(tmp_path):
    big = {"hidden": 512, "inter": 2048, "heads": 8, "kv_heads": 8, "head_dim": 64, "layers": 6}
    config = llama_config(
        hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_key_value_heads=8, head_dim=64,
        num_hidden_layers=6,
    )  # fmt: skip
    folder = llama_folder(tmp_path / "m", config=config, **big)
    code = (
        "from llmlab.quant.gguf_cache import to_gguf\n"
        f"to_gguf({str(folder)!r}, quant='IQ4_XS', progress=lambda p, x: print(p, flush=True))"
    )
    env = {**os.environ, "LLMLAB_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.strip() == "quantize":
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert "KeyboardInterrupt" in stderr
    left = [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert left == ["m-F16.gguf"]
    for _ in range(600):  # killed, but on a busy machine not gone at once
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        if str(tmp_path) not in running:
            break
        time.sleep(0.1)
    assert str(tmp_path) not in running


def test_the_quantizers_output_stays_out_of_the_notebook(cache, capfd):
    to_gguf(NANO, quant="Q4_0")
    assert capfd.readouterr() == ("", "")


def test_a_failing_quantizer_reports_its_last_lines(cache, tmp_path):
    from llmlab.files.tags import TAGS
    from llmlab.quant.gguf_quantizer import quantize_file

    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(LoadError, match="could not make Q4_0") as caught:
        quantize_file(bad, tmp_path / "out.gguf", TAGS["Q4_0"])
    assert "llama_model_quantize" in caught.value.log_tail
