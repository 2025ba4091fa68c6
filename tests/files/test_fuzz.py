"""Damaged files of every kind that llmlab reads: nothing but its own errors, no hang, no memory.

Seeded, so that a failure can be repeated; 5,000 mutations each of a GGUF header, of a folder's config.json and
safetensors header, and of an adapter folder.
"""

import copy
import json
import random
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from llmlab.adapters import checks
from llmlab.adapters import files as reading
from llmlab.engines.base import LoraLimits
from llmlab.errors import LlmLabError
from llmlab.files import fit, jsonfile
from llmlab.files.headers import folder_tag, of_folder, read_config, read_header
from llmlab.machine.memory import Device
from llmlab.quant.gguf_cache import can_convert
from tests.files import gguf_edit
from tests.hub.fakes import llama_config, llama_folder, write_safetensors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by RLIMIT_AS")

CASES = 5_000
# Asked of the machine, it takes longer than all else of a case.
DEVICE = Device("CPU", 2**33, 2**33)
LIMIT_S, LIMIT_BYTES = 2.0, 200 * 2**20

# What fuzzing found values of, in the place of any other.
ODD = (
    None, True, False, 0, -1, 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), "", "x", "\0", "\ud800", "é" * 300, "../../etc/passwd", "/",
    [], [[]], [None], [1], [-1], ["a", "b"], [2**64] * 3, [1.5], {}, {"a": {}}, {"a": [1]}, {"": None},
    "(([a-z._0-9]+)+)+!", "(", "[", "(?<=a)b", "a{1000}{1000}",
)  # fmt: skip


class Watch:
    """Runs cases one by one; fails with the number of the first that does what none may."""

    def run(self, number, action, *given):
        started = time.thread_time()
        said = ""
        try:
            action(*given)
        except LlmLabError as error:
            said = error.message
        except (Exception, MemoryError) as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
        said.encode()  # can be printed
        took = time.thread_time() - started
        assert took < LIMIT_S, f"case {number} took {took:.1f} s"


@pytest.fixture
def scratch():
    """A folder in memory where there is one: a case writes two files, and a busy disk is most of its time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def watch():
    """With an address space of little more than there is: growth is a MemoryError, at no cost per case."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT_BYTES, before[1]))
    yield Watch()
    resource.setrlimit(resource.RLIMIT_AS, before)


def mutated(value, rng):
    """A JSON value with one place changed: removed, replaced by something odd, doubled, or nested deeply."""
    value = copy.deepcopy(value)
    places = []

    def walk(one):
        if isinstance(one, dict | list):
            for key in list(one) if isinstance(one, dict) else range(len(one)):
                places.append((one, key))
                walk(one[key])

    walk(value)
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "__metadata__", "\ud800", "x" * 500, "architectures", "shape"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder[key], int) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * rng.choice((-1, 2, 2**20, 2**40)) + rng.choice((-1, 0, 1))
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return value


def damaged(text, rng):
    """A text as bytes, some of them changed, cut or repeated; now and then nested deeply."""
    data = bytearray(json.dumps(text).encode()) if not isinstance(text, bytes) else bytearray(text)
    kind = rng.randrange(12)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        depth = rng.choice((10, 500, 990, 5_000, 100_000))
        return b'{"architectures":' + rng.choice((b"[", b'{"a":')) * depth
    if kind == 2:
        depth = rng.choice((10, 300, 900, 990))
        return bytes(data).replace(b":", b":" + b"[" * depth + b"1" + b"]" * depth + b', "b":', 1)
    if kind <= 4:
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


# -- GGUF ------------------------------------------------------------------------------------------


def small_gguf(path):
    """A whole model of one layer: a file of a few thousand bytes, nearly all of it header."""
    u32, f32, text, texts = gguf_edit.u32, gguf_edit.f32, gguf_edit.text, gguf_edit.texts
    keys = {
        "general.architecture": text("llama"),
        "general.name": text("small"),
        "general.license": text("mit"),
        "general.alignment": u32(32),
        "general.file_type": u32(0),
        "general.tags": texts([b"a", b"b"]),
        "split.tensors.count": u32(11),
        "llama.block_count": u32(1),
        "llama.embedding_length": u32(8),
        "llama.attention.head_count": u32(2),
        "llama.attention.head_count_kv": (9, struct.pack("<IQI", 4, 1, 1)),
        "llama.attention.key_length": u32(4),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.context_length": u32(64),
        "llama.expert_count": u32(0),
        "llama.rope.freq_base": f32(1e4),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.pre": text("gpt-2"),
        "tokenizer.ggml.tokens": texts([b"a", b"b", b"c", b"d"]),
        "tokenizer.chat_template": text("{{ messages }}"),
    }
    block = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
    names = ["token_embd", "output_norm", *(f"blk.0.{name}" for name in block)]
    tensors = {f"{name}.weight": ((8,) if "norm" in name else (8, 4), 0, bytes(128)) for name in names}
    return keys, tensors, gguf_edit.write(path, keys, tensors).read_bytes()


def odd_key(rng):
    """A key's value of another type, or out of range, or an array that says it is longer than the file."""
    kind = rng.randrange(13)
    if kind == 9:
        inner = rng.choice((*range(13), 77))
        length = rng.choice((0, 1, 3, 1024, 1025, 2**22 + 1, 2**32, 2**63))
        return 9, struct.pack("<IQ", inner, length) + rng.randbytes(rng.choice((0, 8, 64)))
    if kind == 8:
        return gguf_edit.text(rng.choice((b"", b"x" * 2000, b"\xff\xfe", b"none", b"llama", b"\0")))
    size = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}[kind]
    return kind, rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))


def mutated_gguf(path, rng, keys, tensors, whole):
    kind = rng.randrange(4)
    if kind == 0:
        name = rng.choice(list(keys))
        gguf_edit.write(path, {**keys, name: odd_key(rng)}, tensors)
    elif kind == 1:
        name = rng.choice(list(tensors))
        odd = rng.choice(((), (0,), (8,), (8, 4, 1, 1), (2**63, 2**63), (2**40, 4), (1,) * 9, (3, 3)))
        shape, number, data = tensors[name]
        changed = rng.choice(((odd, number, data), (shape, rng.choice((*range(44), 2**31)), data)))
        gguf_edit.write(path, keys, {**tensors, name: changed})
    else:
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(8, len(data) - 8)
            size = rng.choice((1, 4, 8))
            data[at : at + size] = rng.choice((rng.randbytes(size), b"\xff" * size, bytes(size)))
        path.write_bytes(data[: rng.randrange(len(data))] if kind == 3 else data)


def use_gguf(path):
    header = read_header(path)
    header.architecture.encode()
    str(fit.estimate(header, engine="llamacpp", device=DEVICE))
    header.chat_template is None or header.chat_template.encode()


def test_gguf_headers(scratch, watch):
    path, rng = scratch / "m.gguf", random.Random(12)
    keys, tensors, whole = small_gguf(path)
    use_gguf(path)
    for number in range(CASES):
        mutated_gguf(path, rng, keys, tensors, whole)
        watch.run(number, use_gguf, path)


def test_the_160_bytes_that_took_all_memory(tmp_path, watch):
    """`llama.block_count = 4294967295` made the check list 9 x 4.3 billion names."""
    keys = {
        "general.architecture": gguf_edit.text("llama"),
        "llama.block_count": gguf_edit.u32(2**32 - 1),
        "llama.embedding_length": gguf_edit.u32(64),
    }
    path = gguf_edit.write(tmp_path / "m.gguf", keys, {})
    with pytest.raises(LlmLabError, match="block_count"):
        read_header(path)
    folder = llama_folder(tmp_path / "folder", config=llama_config(num_hidden_layers=2**32 - 1))
    watch.run(0, read_header, folder)
    with pytest.raises(LlmLabError, match="has no tensor"):
        read_header(folder)


def test_a_vocabulary_in_a_hole(tmp_path):
    """As many texts or tensors as a sparse file could hold: 600 million empty ones."""
    keys = {"tokenizer.ggml.merges": (9, struct.pack("<IQ", 8, 2**29))}
    path = gguf_edit.write(tmp_path / "m.gguf", keys, {}, size=5 * 2**30)
    with pytest.raises(LlmLabError, match="an array has 536,870,912 strings"):
        read_header(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0))
    with path.open("r+b") as file:
        file.truncate(5 * 2**30)
    with pytest.raises(LlmLabError, match="the tensor '' occurs twice"):
        read_header(path)


# -- folders ---------------------------------------------------------------------------------------


def safetensors(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8192)


def small_tensors():
    names = ["model.embed_tokens", "model.norm", "lm_head"]
    layer = (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
        "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
    )  # fmt: skip
    names += [f"model.layers.0.{name}" for name in layer]
    return {
        f"{name}.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [64 * i, 64 * i + 64]}
        for i, name in enumerate(names)
    }


def use_folder(folder):
    config = read_config(folder)
    folder_tag(config)
    header = read_header(folder)
    header.architecture.encode()
    str(fit.estimate(header, engine="vllm", device=DEVICE))
    can_convert(header)
    of_folder(folder, config, header.files, header.tensors)


def test_folders(scratch, watch):
    config = llama_config(
        num_hidden_layers=1, vocab_size=4, hidden_size=4, num_attention_heads=1, num_key_value_heads=1,
        rope_scaling={"rope_type": "default"}, text_config=None, torch_dtype="float32",
        quantization_config={"quant_method": "compressed-tensors",
                             "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 8}}}},
    )  # fmt: skip
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        "added_tokens": [{"id": 2, "content": "<|end|>", "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "normalizer": None,
    }
    files = {
        "config.json": config,
        "model.safetensors": small_tensors(),
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"chat_template": [{"name": "default", "template": "x"}]},
        "model.safetensors.index.json": {"weight_map": dict.fromkeys(small_tensors(), "model.safetensors")},
    }
    rng = random.Random(34)

    def put(name, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        (scratch / name).write_bytes(safetensors(data) if name == "model.safetensors" else data)

    for name, value in files.items():
        put(name, value)
    use_folder(scratch)
    for number in range(CASES):
        name = rng.choice(list(files))
        put(name, damaged(files[name], rng) if rng.random() < 0.3 else mutated(files[name], rng))
        watch.run(number, use_folder, scratch)
        put(name, files[name])


# -- adapters --------------------------------------------------------------------------------------


def test_adapter_folders(scratch, watch):
    base = read_header(llama_folder(scratch / "base"))
    limits = LoraLimits("peft", mixes=False, max_rank=16, slots=2)
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "bias": "none", "use_dora": False,
        "target_modules": ["q_proj"], "modules_to_save": None, "init_lora_weights": True, "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"q_proj": 8, "k_proj": 4.5}, "base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM",
    }  # fmt: skip
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{stem}.lora_A.weight": {"dtype": "F32", "shape": [2, 64], "data_offsets": [0, 512]},
        f"{stem}.lora_B.weight": {"dtype": "F32", "shape": [64, 2], "data_offsets": [512, 1024]},
    }
    files = {reading.CONFIG: config, reading.WEIGHTS: tensors}
    folder = scratch / "adapter"
    folder.mkdir()
    rng = random.Random(56)

    def put(name, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        (folder / name).write_bytes(safetensors(data) if name == reading.WEIGHTS else data)

    def use():
        files = reading.read(folder)
        str((files.rank, files.targets, files.facts, files.base.encode(), files.plain))
        checks.check(files, base, limits, "vllm", "base")

    for name, value in files.items():
        put(name, value)
    use()
    odd = ["(([a-z._0-9]+)+)+!", "(.*)*.*.*.*.*!", "q_proj", "(?i)Q_PROJ", "(?=q)", "a{1000}{1000}", "(", "\\d+\\.", ""]
    for number in range(CASES):
        name = rng.choice(list(files))
        changed = mutated(files[name], rng)
        if rng.random() < 0.1 and isinstance(changed, dict) and name == reading.CONFIG:
            changed["alpha_pattern"] = {rng.choice(odd): rng.choice((1, 2.5, None, "x")) for _ in range(3)}
        put(name, damaged(files[name], rng) if rng.random() < 0.3 else changed)
        watch.run(number, use)
        put(name, files[name])


def test_gguf_adapters(scratch, watch):
    text, f32 = gguf_edit.text, gguf_edit.f32
    keys = {
        "general.architecture": text("llama"),
        "general.type": text("adapter"),
        "adapter.type": text("lora"),
        "adapter.lora.alpha": f32(8),
        "general.base_model.0.name": text("base"),
    }
    tensors = {
        "blk.0.attn_q.weight.lora_a": ((8, 2), 0, bytes(64)),
        "blk.0.attn_q.weight.lora_b": ((2, 8), 0, bytes(64)),
    }
    path, rng = scratch / "a.gguf", random.Random(78)
    whole = gguf_edit.write(path, keys, tensors).read_bytes()
    assert reading.read(path).rank == 2
    for number in range(1_000):
        mutated_gguf(path, rng, keys, tensors, whole)
        watch.run(number, reading.read, path)


# -- the JSON reader -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": "\\ud800"}', "nul", '"x"', "\0", "1" * 5000])
def test_json_that_is_none(text):
    with pytest.raises(LlmLabError):
        jsonfile.parse(text, "config.json")


def test_surrogate_pairs_are_text():
    assert jsonfile.parse('{"a": "\\ud83d\\ude42"}', "x") == {"a": "🙂"}


def test_an_index_of_names_that_no_disk_takes(tmp_path):
    folder = llama_folder(tmp_path / "m")
    for name in ("x" * 5000, "a\0b", "", "a\nb"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(LlmLabError, match="not a weight index"):
            read_header(folder)


def test_shapes_that_the_data_does_not_hold(tmp_path):
    folder = llama_folder(tmp_path / "m")
    write_safetensors(folder / "model.safetensors", {"a": np.zeros((2, 2), np.float32)})
    data = (folder / "model.safetensors").read_bytes().replace(b'"shape": [2, 2]', b'"shape": [2,99]')
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(LlmLabError, match="only 16 bytes"):
        read_header(folder)
