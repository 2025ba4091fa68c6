"""From what a user types to files, on this machine."""

import json
import shutil

import pytest

from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.hub.spec import parse
from llmlab.loading.forms import find
from llmlab.loading.retrieval import resolve
from tests.hub.fakes import NANO, llama_config, llama_folder


def test_nano_for_each_engine():
    folder = resolve("nano", engine="vllm")
    assert (folder.path, folder.format, folder.quant, folder.base) == (NANO, "safetensors", "bf16", None)
    gguf = resolve("nano", engine="llamacpp")
    assert (gguf.format, gguf.quant, gguf.base, gguf.name) == ("gguf", "F16", NANO, "nano")
    assert read_header(gguf.path).quant == "F16"
    assert resolve("NANO", engine="llamacpp").path == gguf.path
    assert resolve("nano", quant="q8_0").quant == "Q8_0"
    assert resolve("nano", engine="llamacpp", quant="bf16").quant == "BF16"
    assert resolve("nano", engine="vllm", quant="BF16").quant == "bf16"


def test_forms_are_found_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    found = {(c.engine, c.quant): c for c in find(parse("nano"))}
    assert found["vllm", "bf16"].action == "ready"
    assert found["llamacpp", "F16"].action == "convert"
    assert found["llamacpp", "F16"].bytes == pytest.approx(10_564_000, rel=0.02)
    assert not list(tmp_path.rglob("*.gguf"))
    resolve("nano", engine="llamacpp")
    assert {(c.engine, c.quant): c.action for c in find(parse("nano"))}["llamacpp", "F16"] == "ready"


def test_a_users_folder_and_file(tmp_path):
    folder = llama_folder(tmp_path / "mine")
    assert resolve(folder).quant == "fp32"
    made = resolve(str(folder), engine="llamacpp", quant="f16")
    assert (made.name, made.base) == ("mine", folder)
    file = tmp_path / "some-Q8_0.gguf"
    shutil.copy(resolve("nano", quant="Q8_0").path, file)
    source = resolve(file)
    assert (source.name, source.quant, source.format, source.base) == ("some-Q8_0", "Q8_0", "gguf", None)
    assert [(c.engine, c.quant, c.action) for c in find(parse(file))] == [("llamacpp", "Q8_0", "ready")]


def test_architecture_without_a_converter(tmp_path):
    folder = llama_folder(tmp_path / "odd", config=llama_config(architectures=["GPTNeoXForCausalLM"]))
    assert {c.engine for c in find(parse(folder))} == {"vllm"}
    with pytest.raises(UnsupportedError, match=r"GPTNeoXForCausalLM.*convert_hf_to_gguf\.py"):
        resolve(folder, engine="llamacpp")


def test_gguf_in_vllm_is_refused_with_the_reason(tmp_path):
    file = tmp_path / "m.gguf"
    shutil.copy(resolve("nano", quant="Q8_0").path, file)
    with pytest.raises(UnsupportedError, match=r"not built into vLLM.*--engine llamacpp.*%llm quantize .*--to bf16"):
        resolve(file, engine="vllm")
    with pytest.raises(UnsupportedError, match=r"is Q8_0, not Q4_0.*%llm quantize .*--to bf16"):
        resolve(file, quant="Q4_0")


@pytest.mark.parametrize(
    ("spec", "options", "kind", "says"),
    [
        ("", {}, BadInputError, "No model was named"),
        ("nanu", {}, UnknownNameError, "Did you mean 'nano'"),
        ("./nothing", {}, BadInputError, "no file or folder"),
        ("nothing.gguf", {}, BadInputError, "no file or folder"),
        ("meta-llama/Llama-3.2-1B", {}, BadInputError, "hf:meta-llama/Llama-3.2-1B"),
        ("nano", {"quant": "Q4_KM"}, UnknownNameError, "Did you mean 'Q4_K_M'"),
        (
            "nano",
            {"engine": "vllm", "quant": "Q4_K_M"},
            UnsupportedError,
            "vllm doesn't support the quant Q4_K_M.*--engine llamacpp",
        ),
        (
            "nano",
            {"engine": "llamacpp", "quant": "awq"},
            UnsupportedError,
            "llamacpp doesn't support the quant awq.*--engine vllm",
        ),
        ("nano", {"engine": "vllm", "quant": "mxfp4"}, UnsupportedError, "nano has no mxfp4 form: it is bf16"),
        ("nano", {"quant": "IQ2_XS"}, UnsupportedError, "importance matrix"),
        ("nano", {"quant": "MXFP4"}, UnsupportedError, "mixture-of-experts"),
        ("hf:org/name:Q4_0", {"quant": "Q8_0"}, BadInputError, "Two quants"),
        ("llama-3.2-3b", {"engine": "vllm", "quant": "gptq"}, UnsupportedError, "no gptq form.*bf16, fp8"),
    ],
)
def test_refusals(spec, options, kind, says):
    with pytest.raises(kind, match=says) as caught:
        resolve(spec, **options)
    assert "\n" not in str(caught.value)


def test_pickle_and_single_safetensors_are_refused(tmp_path):
    folder = llama_folder(tmp_path / "m")
    with pytest.raises(BadInputError, match="Load the folder"):
        resolve(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for spec in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(UnsupportedError, match="pickle"):
            resolve(spec)


def test_adapter_folder_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    from llmlab.errors import LoadError

    with pytest.raises(LoadError, match="LoRA adapter"):
        resolve(tmp_path)


def test_catalogue_tells_sizes_without_a_network():
    found = {(c.engine, c.quant): c for c in find(parse("llama-3.2-3b"))}
    assert found["llamacpp", "Q4_K_M"].action == "download"
    assert found["llamacpp", "Q4_K_M"].bytes == pytest.approx(2.0e9, rel=0.1)
    assert found["vllm", "bf16"].where == "meta-llama/Llama-3.2-3B-Instruct"
