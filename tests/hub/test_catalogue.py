"""The catalogue: its own entries hold together, the user's are added, and a wrong file is told with its place."""

import dataclasses
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

from llmlab import doctor
from llmlab.display import Catalogue
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.files import tags
from llmlab.hub import catalogue, catalogue_schema, spec


@pytest.fixture
def own(tmp_path, monkeypatch):
    file = tmp_path / "models.toml"
    monkeypatch.setenv("LLMLAB_MODELS", str(file))
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))  # no merged models
    return file


def test_own_entries_hold_together(own):
    entries = catalogue.entries()
    assert len({entry.name for entry in entries}) == len(entries) >= 20
    assert entries[0].name == "nano"
    assert (entries[0].path / "config.json").is_file()
    for entry in entries[1:]:
        assert entry.description
        assert entry.licence
        if entry.path is not None:  # comes with llmlab, as nano does
            assert (entry.path / "config.json").is_file()
            continue
        assert entry.base_repo
        assert entry.parameters > 10**8
        assert entry.context_length >= 2048
        assert entry.quants("llamacpp")
        assert entry.quants("vllm")
        for files in entry.files:
            names = [files.filename(quant) for quant in files.quants]
            assert len(set(names)) == len(names) or files.engine == "vllm"
            for quant, name in zip(files.quants, names, strict=True):
                assert tags.TAGS[quant].engine == files.engine
                assert files.engine == "vllm" or tags.in_filename(name) == quant


def test_user_entries_go_first(own):
    own.write_text('[[model]]\nname = "NANO"\npath = "x.gguf"\n[[model]]\nname = "nano"\npath = "mine"\n')
    assert catalogue.find("nano").origin == str(own)
    assert catalogue.get("nano").path == own.parent / "x.gguf"  # names don't differ by case: the first one counts
    assert sum(entry.name == "nano" for entry in catalogue.entries()) == 1


FILES = '[[model]]\nname = "m"\n[[model.files]]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[model]\n", "not valid TOML"),
        ("[[models]]\nname = 'x'\n", "'models'.*not permitted"),
        ("[[model]]\npath = 'x'\n", "model 1, key 'name'.*required"),
        ("[[model]]\nname = 'm'\n", "model 'm'.*either 'path'"),
        ("[[model]]\nname = 'a b'\npath = 'x'\n", "model 'a b', key 'name'.*letters"),
        ("[[model]]\nname = 'm'\npath = 'x'\nparameters = -4\n", "model 'm', key 'parameters'.*greater than 0"),
        ("[[model]]\nname = 'm'\npath = 'x'\nlicense = 'mit'\n", "model 'm', key 'license'.*not permitted"),
        (FILES + "engine = 'ollama'\nrepo = 'a/b'\nquants = ['Q4_0']\n", "'files.0.engine'.*'llamacpp' or 'vllm'"),
        (FILES + "engine = 'vllm'\nrepo = 'ab'\nquants = ['bf16']\n", "'files.0.repo'.*pattern"),
        (FILES + "engine = 'vllm'\nrepo = 'a/b'\nquants = ['aqw']\n", "'files.0'.*Unknown quant 'aqw'.*'awq'"),
        (FILES + "engine = 'vllm'\nrepo = 'a/b'\nquants = []\n", "'files.0.quants'"),
        (FILES + "engine = 'llamacpp'\nrepo = 'a/b'\nquants = ['Q4_0']\n", "needs 'file'"),
        (
            FILES + "engine = 'llamacpp'\nrepo = 'a/b'\nfile = 'x.gguf'\nquants = ['Q4_0', 'Q8_0']\n",
            r"must have \{quant\}",
        ),
        ("[[model]]\nname = 'm'\n", r"models\.toml: model 'm': give"),
        ("[[model]]\nname = 'm'\npath = '~nobody-has-this-name/x'\n", "key 'path'.*home folder of '~nobody"),
        ("[[model]]\nname = 'm'\npath = ''\n", "key 'path'.*empty"),
        ('[[model]]\nname = "m"\npath = "a\\u0000b"\n', "key 'path'.*NUL"),
        (f"[[model]]\nname = 'm'\npath = 'x'\nparameters = 1{'0' * 400}\n", "key 'parameters'.*less than"),
        (f"[[model]]\nname = '{'m' * 5000}'\npath = 'x'\n", "model 'm{79}, key 'name'.*at most 80"),
        ("[[model]]\nname = 'm'\npath = 'x'\nsampling = { temperature = -1 }\n", r"got -1\.$"),
        (FILES + "engine = 'vllm'\nrepo = 'a/b'\nquants = ['bf16']\nsizes = { bf16 = -4 }\n", "greater than 0"),
        (f"a = {'[' * 5000}{']' * 5000}\n", "not valid TOML"),
        (f"a = {'1' * 5000}\n", "not valid TOML"),
    ],
)
def test_wrong_user_file_is_told_with_its_place(own, text, says):
    own.write_text(text)
    (problem,) = catalogue.problems()
    assert re.search(says, problem)
    assert str(own) in problem
    assert "\n" not in problem


def test_a_byte_order_mark_and_other_line_ends_are_read(own):
    own.write_bytes('\ufeff[[model]]\r\nname = "m"\r\npath = "m.gguf"\r\n'.encode())
    assert catalogue.problems() == ()
    assert catalogue.get("m").path == own.parent / "m.gguf"


def test_a_list_in_an_unknown_home_is_no_list(monkeypatch):
    monkeypatch.setenv("LLMLAB_MODELS", "~nobody-has-this-name/models.toml")
    assert catalogue.problems() == ()
    assert catalogue.get("nano").origin == "llmlab"


@pytest.mark.parametrize("text", ["[[model]\n", "[[models]]\nname = 'x'\n", "trusted = 3\n"])
def test_an_unreadable_user_file_stops_names_and_no_path(own, text):
    own.write_text(text)
    for look in (catalogue.entries, catalogue.trusted, lambda: catalogue.find("nano")):
        with pytest.raises(BadInputError, match=re.escape(str(own))):
            look()
    (check,) = (check for check in doctor.examine().checks if check.name == "models.toml")
    assert check.fix.endswith("until then models load by path only")
    assert spec.parse(str(own.parent)).path == own.parent
    assert spec.parse("hf:a/b").repo == "a/b"


def test_an_invalid_entry_stops_only_loads_of_its_name(own):
    (own.parent / "m.gguf").touch()
    own.write_text(
        'trusted = ["us"]\n[[model]]\nname = "Bad"\npath = "x"\nlicense = "mit"\n'
        '[[model]]\nname = "good"\npath = "m.gguf"\n[[model]]\npath = "nameless"\n'
    )
    assert catalogue.get("good").path == own.parent / "m.gguf"
    assert catalogue.get("nano").origin == "llmlab"
    assert "bad" not in [entry.name.lower() for entry in catalogue.entries()]
    assert catalogue.trusted()[0] == "us"
    assert spec.parse(str(own.parent / "m.gguf")).path == own.parent / "m.gguf"
    with pytest.raises(BadInputError, match=r"model 'Bad', key 'license'.*not permitted"):
        spec.parse("bad")
    first, second = catalogue.problems()
    assert "model 'Bad'" in first
    assert "model 3, key 'name'" in second
    assert first in Catalogue(catalogue.entries(), problems=catalogue.problems()).text()
    assert [check.detail for check in doctor.examine().checks if check.name == "models.toml"] == [first, second]


def test_two_entries_with_one_name_are_said_with_both_places(own):
    for name in "abc":
        (own.parent / f"{name}.gguf").touch()
    own.write_text(
        '[[model]]\nname = "ours"\npath = "a.gguf"\n\n[[model]]\nname = "other"\npath = "b.gguf"\n'
        '[[model]]\nname = "Ours"\npath = "c.gguf"\n'
    )
    said = f"{own} has two models named 'Ours' (line 1 and line 8): the first one counts."
    with pytest.warns(UserWarning, match=re.escape(said)):
        assert spec.parse("ours").path == own.parent / "a.gguf"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spec.parse("OURS").path == own.parent / "a.gguf"  # said once
        assert spec.parse("other").path == own.parent / "b.gguf"
        assert [entry.name for entry in catalogue.entries()][:2] == ["ours", "other"]
    assert [problem[: len(said)] for problem in catalogue.problems()] == [said]
    assert said in Catalogue(catalogue.entries(), problems=catalogue.problems()).text()
    assert [check.detail[: len(said)] for check in doctor.examine().checks if check.name == "models.toml"] == [said]
    own.write_text('model = [{name = "ours", path = "a.gguf"}, {name = "ours", path = "c.gguf"}]\n')
    assert "(model 1 and model 2)" in catalogue.problems()[0]


def test_llmlabs_own_list_is_valid():
    data = tomllib.loads(Path(catalogue.__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    models = catalogue_schema.Catalogue.model_validate(data).model
    assert [model.name for model in models] == [entry.name for entry in catalogue._builtin()]


def test_unknown_name_says_the_closest():
    with pytest.raises(UnknownNameError) as caught:
        catalogue.get("mistal-7b")
    assert caught.value.closest == "mistral-7b"


@pytest.mark.parametrize(
    ("text", "engine", "name"),
    [
        ("q4_k_m", None, "Q4_K_M"), ("Q4-K-M", None, "Q4_K_M"), ("Q4_K", "llamacpp", "Q4_K_M"), ("AWQ", None, "awq"),
        ("bf16", None, "bf16"), ("BF16", None, "BF16"), ("bf16", "llamacpp", "BF16"), ("BF16", "vllm", "bf16"),
        ("fp16", "llamacpp", "F16"), ("f16", "vllm", "fp16"), ("f16", None, "F16"), (" q8_0 ", None, "Q8_0"),
    ],
)  # fmt: skip
def test_tags_have_one_name(text, engine, name):
    assert tags.canonical(text, engine).name == name


def test_unknown_tag_says_the_closest():
    with pytest.raises(UnknownNameError) as caught:
        tags.canonical("Q4_KM")
    assert caught.value.closest == "Q4_K_M"


@pytest.mark.parametrize(
    ("filename", "tag"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"), ("tinyllama-1.1b.q8_0.gguf", "Q8_0"),
        ("m-IQ4_XS.gguf", "IQ4_XS"),
        ("m-bf16.gguf", "BF16"), ("m-fp16.gguf", "F16"), ("gpt-oss-20b-mxfp4.gguf", "MXFP4"), ("model.gguf", None),
        ("m-Q3_K_S.gguf", "Q3_K_S"), ("Q4_0/m-Q5_K_M.gguf", "Q5_K_M"),
    ],
)  # fmt: skip
def test_tag_in_a_filename(filename, tag):
    assert tags.in_filename(filename) == tag


def test_ftypes_are_llama_cpps():
    import llama_cpp

    for tag in tags.TAGS.values():
        if tag.ftype is not None:
            name = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"}.get(tag.name, f"MOSTLY_{tag.name}")
            known = getattr(llama_cpp, f"LLAMA_FTYPE_{name}", tag.ftype)
            assert known == tag.ftype, tag.name


def test_import_is_light():
    code = (
        "import sys, llmlab.loading.retrieval, llmlab.files.fit, llmlab.quant.gguf_cache; "
        "print([m for m in ('numpy', 'gguf', 'torch', 'huggingface_hub', 'pydantic', 'llama_cpp', 'vllm') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "engine", "quant", "real"),
    [
        ("smollm2-135m", "llamacpp", "Q4_K_M", 105_454_432),
        ("qwen3-0.6b", "llamacpp", "Q4_K_M", 484_220_320),
        ("llama-3.2-1b", "vllm", "fp8", 1_880_000_000),
        # Estimated: one that is used twice, and one with a head of its own.
        ("llama-3.2-1b", "llamacpp", "Q8_0", 1_321_083_008),
        ("qwen2.5-7b", "vllm", "awq", 5_570_000_000),
        ("qwen3-8b", "llamacpp", "Q4_K_M", 5_027_783_488),
    ],
)
def test_sizes_before_a_download_are_the_files(own, name, engine, quant, real):
    entry = catalogue.get(name)
    assert entry.bytes(entry.find(engine, quant), quant) == pytest.approx(real, rel=0.02)


def test_small_models_have_eight_bits_by_default(own):
    for entry in catalogue.entries():
        if entry.files and entry.parameters < 10**9:
            assert entry.quants("llamacpp")[0] == "Q8_0", entry.name


def test_estimates_without_the_real_size_are_close_to_those_with_it(own):
    """What the formula says of the forms whose size is listed; rows that K-quants can't cut are left out."""
    odd = {"smollm2-135m", "smollm2-360m", "qwen2.5-0.5b", "gemma-3-1b", "qwen3-0.6b"}
    for entry in catalogue.entries():
        for files in entry.files:
            for quant, real in files.sizes.items():
                if entry.name not in odd and quant.startswith("Q"):
                    assert entry.bytes(dataclasses.replace(files, sizes={}), quant) == pytest.approx(real, rel=0.17)
