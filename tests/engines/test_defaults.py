"""A model's own sampling params: generation_config.json, the GGUF file's metadata, the catalogue."""

import json
import shutil

import pytest

from llmlab import SamplingParams, zoo
from llmlab.engines.defaults import sampling_defaults, shown, unapplied
from llmlab.hub import catalogue


def test_every_sampling_option_of_the_file_is_read():
    file = {
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.05, "typical_p": 0.9,
        "repetition_penalty": 1.05, "min_new_tokens": 3, "suppress_tokens": [1, 2], "max_new_tokens": 2048,
        "eos_token_id": 5,
    }  # fmt: skip
    wanted = SamplingParams(
        temperature=0.6, top_p=0.95, top_k=20, min_p=0.05, typical_p=0.9, repetition_penalty=1.05, min_tokens=3,
        logit_bias={1: -100, 2: -100},
    )  # fmt: skip
    assert sampling_defaults(file, 10) == wanted
    assert unapplied(file) == ()
    assert shown(wanted).startswith("temperature 0.6, top_p 0.95, top_k 20")


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ({"do_sample": False, "temperature": 0.6, "top_k": 5}, {"temperature": 0.0}),
        ({"temperature": "hot", "top_p": 2, "top_k": -1, "repetition_penalty": 0}, {"top_k": 0}),
        ({"suppress_tokens": [99]}, {}),
        ({"suppress_tokens": None, "top_k": None}, {}),
    ],
)  # fmt: skip
def test_invalid_values_are_left_out_and_greedy_stays_greedy(file, wanted):
    assert sampling_defaults(file, 10) == SamplingParams(**wanted)


def test_what_is_not_applied_is_named():
    file = {
        "num_beams": 4,
        "no_repeat_ngram_size": 3,
        "penalty_alpha": None,
        "diversity_penalty": 0.0,
        "num_beam_groups": 1,
    }
    assert unapplied(file) == ("num_beams", "no_repeat_ngram_size")


@pytest.fixture
def folder(tmp_path):
    """Nano with more in its generation_config.json."""
    made = tmp_path / "mine"
    shutil.copytree(zoo.path("nano"), made, ignore=shutil.ignore_patterns("awq", "gptq"))
    config = made / "generation_config.json"
    file = json.loads(config.read_text())
    config.write_text(json.dumps({**file, "repetition_penalty": 1.3, "num_beams": 2}))
    return made


def test_a_load_applies_the_files_defaults_then_the_catalogues(lab, folder, monkeypatch, tmp_path):
    listed = tmp_path / "models.toml"
    entry = f'[[model]]\nname = "mine"\ndescription = "nano"\npath = "{folder}"\n'
    listed.write_text(entry + "sampling = { temperature = 0.1, top_k = 7 }\n")
    monkeypatch.setenv("LLMLAB_MODELS", str(listed))
    model = lab.load("mine", engine="llamacpp")
    defaults = model.facts.defaults
    assert (defaults.temperature, defaults.top_k, defaults.repetition_penalty) == (0.7, 7, 1.3)
    params = model.generate("Hello!", max_tokens=2).params
    assert (params.temperature, params.top_k, params.repetition_penalty) == (0.7, 7, 1.3)
    assert model.generate("Hello!", max_tokens=2, repetition_penalty=1.0).params.repetition_penalty == 1.0
    assert "repetition_penalty 1.3" in model.describe()["sampling defaults"]
    assert model.describe()["not applied"] == "num_beams (generation_config.json)"


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.0}),
        ({"temperature": "hot", "top_p": None, "top_k": -5, "repetition_penalty": 0}, {"top_k": 0}),
        ({"temperature": 0.3, "top_k": 7, "repetition_penalty": 1.2}, None),
        ("[1, 2", {}),
    ],
)  # fmt: skip
def test_a_conversion_has_the_defaults_of_its_folder(lab, folder, file, wanted):
    config = folder / "generation_config.json"
    config.write_text(file if isinstance(file, str) else json.dumps({"eos_token_id": 5, **file}))
    model = lab.load(str(folder), engine="llamacpp")
    found = SamplingParams(**(file if wanted is None else wanted))
    assert model.facts.defaults == found
    # The file alone has them, too.
    alone = lab.load(shutil.copy(model.path, folder.parent / "alone.gguf"), engine="llamacpp", name="alone")
    assert alone.facts.defaults == found


def test_the_list_recommends_each_familys_settings():
    assert catalogue.recommended("qwen3-4b") == SamplingParams(temperature=0.6, top_p=0.95, top_k=20, min_p=0.0)
    assert catalogue.recommended("gemma-3-1b").top_k == 64
    assert catalogue.recommended("nano") is None
    assert catalogue.recommended("unheard-of") is None
