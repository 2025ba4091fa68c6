"""The projector of a LLaVA folder, as llmlab writes it; nano-sees's answers are compared in tests/zoo."""

import json
import shutil

import pytest

from llmlab import zoo
from llmlab.errors import LoadError, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.quant import gguf_cache, gguf_projector, gguf_writer


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(zoo.path("nano-sees"), tmp_path / "seer")


def changed(folder, part, **settings):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    (config[part] if part else config).update(settings)
    file.write_text(json.dumps(config))
    return read_header(folder)


def test_tensors_and_keys_are_those_of_libmtmd(folder, tmp_path):
    import gguf

    header = read_header(folder)
    gguf_writer.check(header)
    gguf_projector.write(header, tmp_path / "mmproj.gguf")
    made = gguf.GGUFReader(tmp_path / "mmproj.gguf")
    keys = {name: field.contents() for name, field in made.fields.items()}
    assert keys["clip.projector_type"] == "mlp"
    assert keys["clip.vision.block_count"] == 4
    assert list(keys["clip.vision.feature_layer"]) == [4]
    names = {tensor.name for tensor in made.tensors}
    assert {"v.patch_embd.weight", "v.position_embd.weight", "mm.0.weight", "mm.2.bias"} <= names
    assert {name.split(".")[2] for name in names if name.startswith("v.blk")} == {"0", "1", "2", "3"}


def test_the_projector_is_written_next_to_each_quant(folder):
    made = gguf_cache.to_gguf(folder, quant="Q8_0")
    assert (made.parent / gguf_cache.PROJECTOR).is_file()
    before = gguf_cache.digest(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))
    assert gguf_cache.digest(folder) != before  # normalized in another way: another projector


@pytest.mark.parametrize(
    ("part", "settings", "says"),
    [
        ("vision_config", {"model_type": "clip_vision_model"}, "model_type 'clip_vision_model'"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("", {"projector_hidden_act": "gelu"}, "projector_hidden_act 'gelu'"),
        ("", {"vision_feature_select_strategy": "default"}, "select_strategy 'default'"),
        ("", {"vision_feature_layer": -1}, "the encoder's last layer"),
        ("", {"vision_feature_layer": [1, 2]}, "the features"),
        ("text_config", {"model_type": "qwen2"}, "LLaVA with 'qwen2'"),
    ],
)
def test_what_libmtmd_would_compute_otherwise_is_refused(folder, part, settings, says):
    header = changed(folder, part, **settings)
    with pytest.raises(UnsupportedError, match=says):
        gguf_writer.check(header)
    assert gguf_cache.can_convert(header)


def test_a_folder_without_its_normalization_is_refused(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(LoadError, match="image_mean"):
        gguf_writer.check(read_header(folder))
