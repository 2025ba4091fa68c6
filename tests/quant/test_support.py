"""The support table (tag, engine, hardware): complete, equal in the docs and the code, and what it refuses."""

import re
from pathlib import Path

import pytest

from llmlab.errors import LoadError, UnsupportedError
from llmlab.files import tags
from llmlab.quant import compatibility

DOC = Path(__file__).parents[2] / "docs" / "quants.md"


def test_every_no_has_a_reason():
    cells = list(compatibility.table())
    assert len(cells) == len(tags.TAGS) * 6
    assert not [cell for cell in cells if not cell.ok and not cell.why]


def test_the_docs_have_the_table_of_the_code():
    found = re.search(r"<!-- table -->\n(.*)\n<!-- end of table -->", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    assert found[1] == compatibility.markdown()


@pytest.mark.parametrize(
    ("tag", "engine", "nearest"),
    [
        ("fp8", "llamacpp", "--engine vllm"),
        ("Q4_K_M", "vllm", "--engine llamacpp"),
        ("fp8_per_tensor", "vllm", "fp8 in vllm"),
        ("mxfp8", "vllm", "fp8 in vllm"),
    ],
)
def test_a_wrong_pair_names_what_works(tag, engine, nearest):
    with pytest.raises(UnsupportedError) as caught:
        compatibility.check(tag, engine, "CPU")
    assert nearest in str(caught.value)


def test_four_bits_on_a_cpu_need_avx512(monkeypatch, lab):
    for tag in ("awq", "gptq"):
        assert compatibility.support(tag, "vllm", "CPU", avx512=True).ok
        assert compatibility.support(tag, "vllm", "CUDA", avx512=False).ok
        with pytest.raises(UnsupportedError, match=r"without AVX-512.*fp8 in vllm"):
            compatibility.check(tag, "vllm", "CPU", avx512=False)
    monkeypatch.setattr(compatibility, "has_avx512", lambda: False)
    with pytest.raises(UnsupportedError, match="AVX-512"):
        lab.load("nano", engine="vllm", quant="awq")
    assert not lab.models


def test_nothing_is_loaded_for_a_wrong_pair(lab):
    with pytest.raises(UnsupportedError, match=r"doesn't run fp8_per_tensor on the CPU"):
        lab.load("nano", engine="vllm", quant="fp8_per_tensor")
    assert not lab.models


def test_spellings_of_vllm_mean_one_tag():
    assert tags.canonical("fp8_per_channel", "vllm").name == "fp8"
    assert tags.canonical("W8A8", "vllm").name == "int8"
    assert tags.canonical("w4a16_asym", "vllm").name == "awq"


def test_a_split_file_with_a_part_missing(tmp_path, lab):
    part = tmp_path / "model-00001-of-00002.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(LoadError, match=r"00002-of-00002"):
        lab.load(str(part), engine="llamacpp")
