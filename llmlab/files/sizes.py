"""Sizes for an engine that plans its GPU memory when it loads: sequences, KV cache, adapter slots.

vLLM pages its KV cache: sequences share a pool of blocks, so as many run as have tokens in it, up to a limit.
"""

from __future__ import annotations

from llmlab.files import fit
from llmlab.files.headers import Header
from llmlab.machine.memory import Device

# vLLM's default limits of concurrent sequences (EngineArgs, LLM class): for GPUs from 70 GiB but the A100, and others.
_MOST, _MOST_LARGE = 256, 1024
_LARGE = 70 * 2**30
# Tokens in the pool per concurrent sequence, at least: a short question and its answer.
_SEQUENCE = 512
# Share of the memory left by the weights that the pool takes; the rest stays free for a second model.
POOL_SHARE = 0.5
# Adapter slots are set aside without a request only up to this share of the free memory.
ADAPTER_SHARE = 0.02
# What isn't wrapped by vLLM's LoRA layers.
_NOT_LINEAR = ("embed", "lm_head", "wte", "wpe", "norm", "router", "mlp.gate.")


def most_sequences(device: Device) -> int:
    """The limit of concurrent sequences on a GPU that vLLM has by default."""
    return _MOST_LARGE if device.total // device.count >= _LARGE and "a100" not in device.name.lower() else _MOST


def pool(
    header: Header,
    device: Device,
    *,
    overhead: int,
    length: int,
    concurrency: int | None,
    shortest: int | None,
    budget: int | None = None,
    asked: fit.Sizes | None = None,
) -> tuple[int, int, int]:
    """Context length, concurrency and tokens of a paged KV cache on a GPU.

    Args:
        header: the model's header.
        device: the GPU, or several.
        overhead: bytes that the engine needs besides weights and KV cache.
        length: the context length.
        concurrency: the requested number of sequences; None for the most that the pool is good for.
        shortest: the shortest context to fall back to if `length` doesn't fit; None to keep it.
        budget: bytes of the KV cache, if they were given.
        asked: what the load's options say: a draft model, with its own weights, keys and values, and the split.

    Returns:
        The three; the pool has room for at least one sequence of the context length, even if that doesn't fit.
    """
    asked = asked or fit.Sizes()
    models = [header] if asked.draft is None else [header, asked.draft]
    more, repeats = fit.spread(header, asked.parallel)
    per_token = max(int(sum(fit.kv_bytes(one, 1) for one in models) * more * repeats), 1)
    weights = int(sum(one.weight_bytes for one in models) * more)
    room = device.free - int(device.free * fit.HEADROOM) - weights - overhead
    while shortest is not None and length > shortest and length * per_token > room:
        length = max(length // 2, shortest)
    most = concurrency or most_sequences(device)
    tokens = budget // per_token if budget is not None else int(max(room, 0) * POOL_SHARE) // per_token
    if budget is None:
        tokens = max(min(tokens, most * length), length)
    return length, concurrency or max(min(most, tokens // _SEQUENCE), 1), tokens


def adapter_bytes(header: Header, slots: int, rank: int) -> int:
    """Bytes of vLLM's adapter slots: in 16 bits, both matrices of each linear layer, for each expert, in each slot.

    Args:
        header: the model's header.
        slots: the most adapters in one step.
        rank: the largest rank.
    """
    return 2 * slots * rank * sum(_in_and_out(header, tensor.name, tensor.shape) for tensor in header.tensors)


def _in_and_out(header: Header, name: str, shape: tuple[int, ...]) -> int:
    """The inputs and outputs of a linear layer; 0 for another tensor."""
    if len(shape) < 2 or any(part in name for part in _NOT_LINEAR):
        return 0
    rows, columns = shape[-2:]
    count = 1
    for size in shape[:-2]:  # stacked experts
        count *= size
    if name.endswith(("qweight", "weight_packed")):
        # Eight 4-bit weights per integer; GPTQ packs along the inputs, the rows.
        return count * (8 * rows + columns if header.quant == "gptq" else rows + 8 * columns)
    return count * (rows + columns) if name.endswith("weight") or count > 1 else 0
