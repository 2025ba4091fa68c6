"""Invalid adapters are refused before they reach an engine: one line, with both models and a suggested fix."""

import hashlib
import json
import math
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file

from llmlab import zoo
from llmlab.adapters import checks, conversion, mixing
from llmlab.adapters.attached import parse
from llmlab.adapters.files import read
from llmlab.engines.base import LoraLimits
from llmlab.errors import BadInputError, LoadError, UnknownNameError, UnsupportedError
from llmlab.files.headers import read_header
from llmlab.quant.gguf_cache import to_gguf
from tests.adapters import adapters

NANO = zoo.path("nano")
PEFT = LoraLimits("peft", mixes=False, max_rank=16, slots=2)


def check(folder, limits=PEFT):
    checks.check(read(folder), read_header(NANO), limits, "vllm", "nano")


def test_a_good_one(folders):
    found = read(folders["a"])
    assert (found.rank, found.format) == (8, "peft")
    assert found.targets == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    check(folders["a"])


def test_no_configuration(tmp_path):
    with pytest.raises(BadInputError, match=r"no adapter_config\.json"):
        read(tmp_path)
    with pytest.raises(BadInputError, match="model folder"):
        read(NANO)
    with pytest.raises(BadInputError, match="There is no adapter"):
        read(tmp_path / "gone")


def test_a_pickle_is_refused_and_not_opened(tmp_path, folders):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    (tmp_path / "adapter_config.json").write_text((folders["a"] / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UnsupportedError, match=r"pickle.*can run any code"):
        read(tmp_path)
    with pytest.raises(UnsupportedError, match="pickle"):
        read(tmp_path / "adapter_model.bin")


def test_truncated_weights(tmp_path, folders):
    (tmp_path / "adapter_config.json").write_text((folders["a"] / "adapter_config.json").read_text())
    whole = (folders["a"] / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match="truncated"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["norm"]}, "complete modules"),
        ({"trainable_token_indices": [1, 2]}, "vocabulary"),
        ({"init_lora_weights": "pissa"}, "changed base"),
    ],
)
def test_kinds_that_engines_do_not_follow(tmp_path, config, says):
    with pytest.raises(UnsupportedError, match=says):
        read(adapters.make(tmp_path, 1, **config))


def test_added_tokens(tmp_path):
    found = adapters.tensors(1) | {"base_model.model.model.embed_tokens.weight": np.zeros((2050, 256), np.float32)}
    with pytest.raises(UnsupportedError, match="2050 rows"):
        read(adapters.write(tmp_path, found))


def test_another_base_names_both_sides(tmp_path):
    wide = {name: (rows * 2, columns * 2) for name, (rows, columns) in adapters.SHAPES.items()}
    other = adapters.write(tmp_path / "wide", adapters.tensors(1, shapes=wide), base="org/larger")
    with pytest.raises(BadInputError, match=r"org/larger.*512 x 1536; in nano it is 256 x 768"):
        check(other)
    deep = adapters.write(tmp_path / "deep", adapters.tensors(1, layers=8), base="org/deeper")
    with pytest.raises(BadInputError, match=r"org/deeper.*it has 8 layers, nano has 6"):
        check(deep)


def test_rank_above_the_limit(tmp_path):
    with pytest.raises(UnsupportedError, match=r"rank 32.*limit of rank 16") as caught:
        check(adapters.make(tmp_path, 1, rank=32))
    assert "max_lora_rank=32" in caught.value.hint


def test_modules_that_no_engine_changes(tmp_path):
    found = adapters.tensors(1, shapes={"mlp.router": (8, 256)}, targets=("mlp.router",))
    with pytest.raises(UnsupportedError, match="router"):
        check(adapters.write(tmp_path, found))


def test_gguf_adapters_are_llamacpps(folders):
    file = conversion.to_gguf(read(folders["a"]), read_header(to_gguf(NANO, quant="F16")))
    found = read(file)
    assert (found.format, found.rank, found.architecture) == ("gguf", 8, "llama")
    with pytest.raises(UnsupportedError, match=r"GGUF adapter, but vllm takes PEFT"):
        check(file)
    with pytest.raises(BadInputError, match="not of an adapter"):
        read(to_gguf(NANO, quant="F16"))


def test_conversion_is_made_once_by_content(folders, tmp_path):
    header = read_header(to_gguf(NANO, quant="F16"))
    first = conversion.to_gguf(read(folders["a"]), header)
    before = first.stat().st_mtime_ns
    copy = tmp_path / folders["a"].name
    copy.mkdir()
    for file in folders["a"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert conversion.to_gguf(read(copy), header) == first
    assert first.stat().st_mtime_ns == before
    assert conversion.to_gguf(read(folders["b"]), header) != first


def test_converted_matrices_are_llama_cpps(folders):
    """The product B A of each module, in the row order of the converted base weights."""
    import gguf

    from llmlab.quant import gguf_writer

    file = conversion.to_gguf(read(folders["a"]), read_header(to_gguf(NANO, quant="F16")))
    got = {one.name: np.array(one.data) for one in gguf.GGUFReader(file).tensors}
    peft = load_file(folders["a"] / "adapter_model.safetensors")
    header = read_header(NANO)
    for module, name in (("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("mlp.up_proj", "ffn_up")):
        stem = f"base_model.model.model.layers.3.{module}"
        product = peft[f"{stem}.lora_B.weight"] @ peft[f"{stem}.lora_A.weight"]
        wanted = gguf_writer._permuted(f"{module}.weight", product, header)
        a, b = got[f"blk.3.{name}.weight.lora_a"], got[f"blk.3.{name}.weight.lora_b"]
        np.testing.assert_allclose(b @ a, wanted, rtol=1e-5, atol=1e-6)


def test_a_mix_is_exact(folders):
    one, two = read(folders["a"]), read(folders["b"])
    folder = mixing.write([(one, 0.7), (two, -0.3)])
    mixed = read(folder)
    assert mixed.rank == 12
    data = [load_file(files.weights) for files in (one, two, mixed)]
    for module in one.modules:
        products = [
            d[f.modules[module].names[1]] @ d[f.modules[module].names[0]] * f.modules[module].scaling
            for d, f in zip(data, (one, two, mixed), strict=True)
        ]
        np.testing.assert_allclose(products[2], 0.7 * products[0] - 0.3 * products[1], rtol=1e-4, atol=1e-6)
    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest()
    assert mixing.write([(two, -0.3), (one, 0.7)]) == folder
    assert hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest() == digest


def test_scaling_as_peft_has_it(tmp_path):
    config = {"use_rslora": True, "alpha_pattern": {"q_proj": 4}}
    found = read(adapters.make(tmp_path, 1, rank=4, alpha=8, **config))
    scales = {name.rsplit(".", 1)[-1]: pair.scaling for name, pair in found.modules.items()}
    assert scales["q_proj"] == pytest.approx(4 / math.sqrt(4))
    assert scales["v_proj"] == pytest.approx(8 / math.sqrt(4))


def renamed(found, change):
    return {change(name): tensor for name, tensor in found.items()}


def named(name):
    """Tensor names with an adapter's name, as in PEFT's own modules."""
    return lambda old: old.replace(".weight", f".{name}.weight")


# What PEFT's save_pretrained writes (the first), and variants in state dicts saved by other means.
WRITTEN = {
    "save_pretrained": lambda old: old,
    "the default adapter's name": named("default"),
    "another adapter's name": named("sql"),
    "a name with signs": named("my-adapter_2"),
    "torch.compile": lambda old: old.replace("base_model.model.", "base_model.model._orig_mod."),
    "FSDP": lambda old: old.replace("layers.", "layers._fsdp_wrapped_module."),
    "checkpointing": lambda old: old.replace("self_attn", "_checkpoint_wrapped_module.self_attn"),
    "no prefix": lambda old: old.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_every_name_that_peft_writes(tmp_path, written, lora_lab):
    """Each gives the same text as the plain one, on both engines; vLLM gets a plain copy."""
    found = adapters.tensors(7, strength=0.1)
    odd = adapters.write(tmp_path / "odd", renamed(found, WRITTEN[written]))
    plain = adapters.write(tmp_path / "plain", found)
    assert read(odd).modules.keys() == read(plain).modules.keys()
    for model in lora_lab.models.values():
        texts = []
        for place in (plain, odd):
            model.add_adapter("named", place)
            texts.append(model.generate("Once upon a time", adapter="named", temperature=0, max_tokens=12).text)
            model.remove_adapter("named")
        assert texts[0] == texts[1]
        assert texts[0] != model.generate("Once upon a time", adapter="none", temperature=0, max_tokens=12).text


def test_patterns_of_rank_and_alpha_on_both_engines(tmp_path, lora_lab):
    """Factors that differ by module give the same text as an adapter with the factors in its matrices."""
    found = adapters.tensors(8, rank=4, strength=0.1)
    config = {"alpha_pattern": {r".*\.[0-2]\.self_attn\.(q|v)_proj": 16, "down_proj": 1}, "rank_pattern": {"o_proj": 4}}
    odd = read(adapters.write(tmp_path / "odd", found, rank=4, alpha=8, **config))
    scales = {name: pair.scaling for name, pair in odd.modules.items()}
    assert scales["model.layers.2.self_attn.q_proj"] == 4
    assert scales["model.layers.3.self_attn.q_proj"] == 2
    assert scales["model.layers.3.mlp.down_proj"] == 0.25
    even = {
        name: tensor * np.float32(scales[module] if ".lora_B." in name else 1)
        for module in scales
        for name, tensor in found.items()
        if name.startswith(f"base_model.model.{module}.")
    }
    plain = adapters.write(tmp_path / "plain", even, rank=4, alpha=4)
    for model in lora_lab.models.values():
        texts = []
        for place in (plain, odd.path):
            model.add_adapter("patterned", place)
            texts.append(model.generate("Once upon a time", adapter="patterned", temperature=0, max_tokens=12).text)
            model.remove_adapter("patterned")
        assert texts[0] == texts[1]


Q = "base_model.model.model.layers.0.self_attn.q_proj"
VECTOR = np.ones(256, np.float32)
# Other tensors that PEFT writes, and the reason in the error.
OTHERS = {
    "DoRA": ({f"{Q}.lora_magnitude_vector": VECTOR}, "DoRA"),
    "DoRA, the adapter's name kept": ({f"{Q}.lora_magnitude_vector.default.weight": VECTOR}, "DoRA"),
    "lora_bias": ({f"{Q}.lora_B.bias": VECTOR}, "biases"),
    "bias='all'": ({f"{Q}.base_layer.bias": VECTOR}, "biases"),
    "an embedding": (
        {f"base_model.model.model.embed_tokens.lora_embedding_{side}": np.ones((4, 4), np.float32) for side in "AB"},
        "embeddings",
    ),
    "a resized embedding": ({"base_model.model.model.embed_tokens.weight": np.ones((9, 4), np.float32)}, "9 rows"),
    "trained tokens": (
        {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones((2, 4), np.float32)},
        "embeddings",
    ),
    "modules_to_save": ({"base_model.model.score.weight": np.ones((2, 4), np.float32)}, r"complete modules \(score"),
    "KaSA": ({f"{Q}.lora_diag": VECTOR}, "lora_diag"),
    "two adapters": ({f"{Q}.lora_A.b.weight": np.ones((8, 256), np.float32)}, "several adapters"),
    "integers": ({f"{Q}.lora_A.weight": np.ones((8, 256), np.int8)}, "not as floats"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_peft_tensors_are_refused_by_kind(tmp_path, kind):
    more, says = OTHERS[kind]
    with pytest.raises(UnsupportedError, match=says):
        read(adapters.write(tmp_path, adapters.tensors(1) | more))


@pytest.mark.parametrize("key", ["(([a-z._0-9]+)+)+!", "(.*)*.*.*.*.*!", "([a-z]|[a-z.0-9_])*!"])
def test_patterns_can_not_hang(tmp_path, key):
    """Python's regex engine would take years on these; so would vLLM's."""
    found = read(adapters.make(tmp_path, 1, alpha_pattern={key: 4}))
    assert {pair.scaling for pair in found.modules.values()} == {1.0}
    assert not found.plain


@pytest.mark.parametrize("key", ["(?=q_proj)", "(", "a{1000}{1000}", r"(q)\1"])
def test_patterns_that_can_not_be_matched(tmp_path, key):
    with pytest.raises(UnsupportedError, match="alpha_pattern that can't be matched"):
        read(adapters.make(tmp_path, 1, alpha_pattern={key: 4}))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"r": True}, "r = True"),
        ({"r": 2.5}, "an integer"),
        ({"lora_alpha": "x"}, "a finite number"),
        ({"alpha_pattern": [1]}, "must be an object"),
        ({"alpha_pattern": {"q_proj": None, "v_proj": "x"}}, "v_proj = 'x'"),
        ({"rank_pattern": {"q_proj": -1}}, "q_proj = -1"),
        ({"modules_to_save": 7}, "a list of strings"),
    ],
)
def test_values_of_another_type(tmp_path, config, says):
    folder = adapters.make(tmp_path, 1)
    said = json.loads((folder / "adapter_config.json").read_text()) | config
    (folder / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(LoadError, match=says):
        read(folder)


@pytest.mark.parametrize(
    ("a", "b"), [((), (256, 8)), ((8,), (256, 8)), ((0, 256), (256, 0)), ((8, 256), (256, 4)), ((8, 256, 1), (256, 8))]
)
def test_matrices_that_are_none(tmp_path, a, b):
    found = {f"{Q}.lora_A.weight": np.zeros(a, np.float32), f"{Q}.lora_B.weight": np.zeros(b, np.float32)}
    with pytest.raises(LoadError, match="don't fit each other"):
        read(adapters.write(tmp_path, found))


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("a", [("a", 1)]),
        ("a:0.5", [("a", 0.5)]),
        ("a:0.7+b:-0.3", [("a", 0.7), ("b", -0.3)]),
        ("none", []),
        ("", []),
    ],
)
def test_how_mixes_are_written(spec, parts):
    assert parse(spec) == parts


@pytest.mark.parametrize("spec", ["a:", "a:x", "+a", "a+", ":1", "a:nan", "a+a", 3, ["a"]])
def test_how_they_are_not(spec):
    with pytest.raises(BadInputError):
        parse(spec)


def test_names(lora_lab, folders):
    model = lora_lab.models["llamacpp"]
    with pytest.raises(BadInputError, match="already"):
        model.add_adapter("a", folders["b"])
    for name in ("none", "x y", "x:1", "a+b", ""):
        with pytest.raises(BadInputError, match="can't be called"):
            model.add_adapter(name, folders["b"])
    with pytest.raises(UnknownNameError) as caught:
        model.generate("hi", adapter="aa")
    assert set(caught.value.known) >= {"a", "b"}
    with pytest.raises(BadInputError, match=r"list of 2, but there are 3 prompts"):
        model.generate(["x", "y", "z"], adapter=["a", "b"])
    with pytest.raises(BadInputError):
        model.generate("x", adapter=["a"])
    with pytest.raises(UnknownNameError):
        model.add_adapter("new", "no-such-adapter")


def test_vllm_without_room_says_how_to_make_it(folders):
    limits = LoraLimits("peft", mixes=False, refused="it was loaded without room", hint="-x max_loras=4")
    with pytest.raises(UnsupportedError, match="without room") as caught:
        check(folders["a"], limits)
    assert "max_loras=4" in caught.value.hint


def test_a_broken_configuration(tmp_path):
    folder = adapters.make(tmp_path, 1)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(LoadError, match="not valid JSON"):
        read(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 0, "lora_alpha": 1}))
    with pytest.raises(LoadError, match="rank"):
        read(folder)
