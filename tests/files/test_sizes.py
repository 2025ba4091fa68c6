"""Plans for GPUs that no test machine has: concurrency, adapter slots, utilization, layers in RAM."""

import dataclasses

import pytest

from llmlab.engines.base import Reserved
from llmlab.engines.vllm import options
from llmlab.errors import DoesNotFitError, UnsupportedError
from llmlab.files import architectures, fit, offload, sizes
from llmlab.files.gguf import TensorInfo
from llmlab.files.headers import read_header
from llmlab.loading import plan
from llmlab.machine.memory import Device
from tests.hub.fakes import NANO

GIB = 2**30


def moe(*, layers, hidden, ffn, kv, experts=0, vocab=32000, bits=16):
    """A header as it would be read from the files of a Mistral or Qwen model."""
    each = ("gate_proj", (ffn, hidden)), ("up_proj", (ffn, hidden)), ("down_proj", (hidden, ffn))
    shapes = {"q_proj": (hidden, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, hidden)}
    names = {f"layers.{i}.self_attn.{name}.weight": shape for i in range(layers) for name, shape in shapes.items()}
    for i in range(layers):
        for expert in range(experts or 1):
            place = f"layers.{i}.mlp.experts.{expert}" if experts else f"layers.{i}.mlp"
            names |= {f"{place}.{name}.weight": shape for name, shape in each}
        names[f"layers.{i}.input_layernorm.weight"] = (hidden,)
    names |= {"embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden)}
    tensors = tuple(
        TensorInfo(name, shape, "BF16", 2 * shape[0] * (shape[1] if len(shape) > 1 else 1))
        for name, shape in names.items()
    )
    count = sum(tensor.bytes for tensor in tensors) // 2
    return dataclasses.replace(
        read_header(NANO), name="described", architecture="MistralForCausalLM", parameters=count, layers=layers,
        hidden=hidden, heads=hidden // 128, kv_heads=kv // 128, head_dim=128, kv_values=layers * 2 * kv,
        vocab_size=vocab, context_length=32768, weight_bytes=count * bits // 8, tensors=tensors,
    )  # fmt: skip


MISTRAL_7B = moe(layers=32, hidden=4096, ffn=14336, kv=1024)
QWEN_30B = moe(layers=48, hidden=2048, ffn=768, kv=512, experts=128, vocab=151936)
LLAMA_70B_Q4 = moe(layers=80, hidden=8192, ffn=28672, kv=1024, vocab=128256, bits=5)


def gpu(free, total=None, count=1, name="GPU"):
    return Device(name, int(free * GIB), int((total or free) * GIB), count)


def test_adapter_slots_take_what_vllm_takes():
    assert sizes.adapter_bytes(MISTRAL_7B, 4, 64) / GIB == pytest.approx(1.25, abs=0.02)
    assert sizes.adapter_bytes(QWEN_30B, 4, 64) / GIB == pytest.approx(25, abs=1)


@pytest.mark.parametrize(
    ("header", "device", "extra", "slots"),
    [
        (MISTRAL_7B, gpu(79, 80), {}, 4),
        (MISTRAL_7B, gpu(23, 24), {}, 0),
        (MISTRAL_7B, gpu(23, 24), {"max_loras": 2}, 2),
        (QWEN_30B, gpu(79, 80), {}, 0),
        (dataclasses.replace(MISTRAL_7B, architecture="FalconForCausalLM"), gpu(79, 80), {}, 0),
        (read_header(NANO), gpu(15, 16), {}, 4),
        (MISTRAL_7B, Device("CPU", 30 * GIB, 32 * GIB), {}, None),
    ],
)
def test_slots_are_set_aside_if_the_architecture_has_them_and_they_are_cheap(header, device, extra, slots):
    reserved = options.reserve(header, extra, device)
    assert reserved.adapter_slots == slots
    assert reserved.adapter_bytes == sizes.adapter_bytes(header, slots or 0, 64)


def test_slots_that_an_architecture_has_not_are_refused():
    header = dataclasses.replace(MISTRAL_7B, architecture="FalconForCausalLM")
    with pytest.raises(UnsupportedError, match="no LoRA layers for FalconForCausalLM"):
        options.reserve(header, {"max_loras": 4}, gpu(79, 80))


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3MoeForCausalLM", "FalconForCausalLM"])
def test_lora_support_is_read_as_vllm_declares_it(name, vllm):
    from vllm.model_executor.models import ModelRegistry, supports_lora

    entry = ModelRegistry.models[name]
    loaded = entry.load_model_cls() if hasattr(entry, "load_model_cls") else entry.model_cls
    assert architectures.lora_in_vllm(name) is supports_lora(loaded)


def test_an_unknown_architecture_is_unknown():
    assert architectures.lora_in_vllm("NoSuchForCausalLM") is None


@pytest.mark.parametrize(
    ("device", "length", "concurrency"),
    [
        (gpu(15.5, 16), 4096, 8),  # the weights leave 0.5 GiB: one sequence of 4,096 tokens, or eight of 512
        (gpu(23.5, 24), 8192, 66),
        (gpu(79, 80), 8192, 497),
        (gpu(79, 80, name="NVIDIA A100"), 8192, 256),
    ],
)
def test_concurrency_is_vllms_bounded_by_the_tokens_that_fit(device, length, concurrency):
    size = plan.settle_size(MISTRAL_7B, "vllm", None, None, device=device)
    assert (size.length, size.concurrency) == (length, concurrency)
    assert size.kv_tokens >= size.length
    found = plan.estimate_load(MISTRAL_7B, "vllm", size.length, size.concurrency, device, kv_tokens=size.kv_tokens)
    assert found.fits


def test_a_second_model_gets_what_is_left_and_neither_asks_for_more_than_is_free():
    total = 80 * GIB
    free, shares = total - GIB, []
    for _ in range(2):
        device = Device("GPU", free, total)
        size = plan.settle_size(MISTRAL_7B, "vllm", None, None, device=device)
        found = plan.estimate_load(MISTRAL_7B, "vllm", size.length, size.concurrency, device, kv_tokens=size.kv_tokens)
        assert found.fits
        shares.append(plan.gpu_share(found, device))
        # vLLM refuses to start with less free memory than its share of the total.
        assert shares[-1] * total <= free
        # It takes its CUDA context on top of it.
        assert shares[-1] * total + fit.CUDA_CONTEXT == pytest.approx(found.total, rel=0.001)
        free -= found.total
    assert sum(shares) < 1


def test_a_tight_load_keeps_its_one_context_beside_the_cuda_context():
    device = gpu(15.5, 16)
    found = plan.estimate_load(MISTRAL_7B, "vllm", 4096, 1, device, kv_tokens=4096)
    assert plan.gpu_share(found, device) * device.total == pytest.approx(found.total, rel=0.001)


def test_the_pool_leaves_room_for_a_draft_model():
    device = gpu(30, 32)
    asked = fit.Sizes(draft=MISTRAL_7B, drafted=4)
    size = plan.settle_size(MISTRAL_7B, "vllm", None, None, device=device, asked=asked)
    found = plan.estimate_load(
        MISTRAL_7B, "vllm", size.length, size.concurrency, device, kv_tokens=size.kv_tokens, asked=asked
    )
    assert found.weights == 2 * MISTRAL_7B.weight_bytes
    assert found.fits


def test_given_sizes_are_the_estimates():
    reserved = options.reserve(MISTRAL_7B, {"kv_cache_gib": 4.0}, gpu(23, 24))
    size = plan.settle_size(MISTRAL_7B, "vllm", None, None, device=gpu(23, 24), reserved=reserved)
    assert size.kv_tokens == 4 * GIB // fit.kv_bytes(MISTRAL_7B, 1)
    share = options.reserve(MISTRAL_7B, {"gpu_memory_utilization": 0.8}, gpu(79, 80))
    size = plan.settle_size(MISTRAL_7B, "vllm", None, 4, device=gpu(79, 80), reserved=share)
    found = plan.estimate_load(
        MISTRAL_7B, "vllm", size.length, 4, gpu(79, 80), kv_tokens=size.kv_tokens, reserved=share
    )
    assert found.total == pytest.approx(0.8 * 80 * GIB, rel=0.001)
    assert options.reserve(MISTRAL_7B, {}, Device("CPU", GIB, GIB)) == Reserved()


def test_a_model_over_several_gpus_counts_all_of_them():
    found = plan.estimate_load(LLAMA_70B_Q4, "llamacpp", 8192, 1, gpu(46, 48, count=2))
    assert found.fits
    one = plan.estimate_load(LLAMA_70B_Q4, "llamacpp", 8192, 1, gpu(23, 24))
    assert not one.fits


def test_as_many_layers_as_fit_are_on_the_gpu():
    device, ram = gpu(23, 24), Device("CPU", 60 * GIB, 64 * GIB)
    found = plan.estimate_load(LLAMA_70B_Q4, "llamacpp", 4096, 1, device)
    settled, layers, note = offload.settle(LLAMA_70B_Q4, found, device, None, force=False, ram=ram)
    assert settled.fits
    assert 30 < layers < 60
    assert not offload.part(found, LLAMA_70B_Q4, layers + 1).fits
    assert note.startswith(f"{layers} of 80 layers on the GPU, ")
    assert offload.settle(LLAMA_70B_Q4, found, device, 10, force=False, ram=ram)[1] == 10
    small = plan.estimate_load(MISTRAL_7B, "llamacpp", 4096, 1, device)
    assert offload.settle(MISTRAL_7B, small, device, None, force=False, ram=ram) == (small, None, "")
    with pytest.raises(DoesNotFitError, match=r"need about .* of RAM"):
        offload.settle(LLAMA_70B_Q4, found, device, None, force=False, ram=Device("CPU", 8 * GIB, 8 * GIB))


SMOL = moe(layers=30, hidden=576, ffn=1536, kv=192, vocab=49152, bits=5)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (8192, 4)),  # 8 x 8,192 tokens: 1.5 GB of KV cache for 97 MB of weights
        ({"ctx": 4096}, (4096, 4)),
        ({"ctx": 8192, "max_concurrency": 8}, (8192, 8)),
        ({"asked": fit.Sizes(kv_tokens=65_536)}, (8192, 8)),
    ],
)
def test_a_small_model_gets_a_small_kv_cache(asked, expected):
    options = {"ctx": None, "max_concurrency": None, **asked}
    ctx, concurrency = options.pop("ctx"), options.pop("max_concurrency")
    size = plan.settle_size(SMOL, "llamacpp", ctx, concurrency, device=Device("CPU", 30 * GIB, 32 * GIB), **options)
    assert (size.length, size.concurrency) == expected


def test_a_large_model_keeps_eight_sequences():
    size = plan.settle_size(MISTRAL_7B, "llamacpp", None, None, device=Device("CPU", 250 * GIB, 256 * GIB))
    assert (size.length, size.concurrency) == (8192, 8)
