"""LoRA in vLLM on the CPU: layers are wrapped at the first adapter, and adapters are computed in groups.

This works around a bug in vLLM 0.32. A token without an adapter has index -1, which the CPU kernels
(`lora/ops/torch_ops/lora_ops.py`) use as is: the last slot's matrices. With all slots filled, a base model request
that shares a step with an adapter's request gets that adapter. The kernels also copy both matrices for every
token. `Grouped` computes each adapter's tokens together instead, and skips those of the base model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any


@functools.cache
def grouped() -> type:
    """The class that applies adapters to a layer's output. Defined lazily: its base class is in vLLM."""
    import torch
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    class Grouped(PunicaWrapperCPU):  # type: ignore[misc]
        """Applies each adapter to its own tokens."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._groups: list[tuple[int, Any]] = []
            self.ranks: dict[int, int] = {}

        def update_metadata(self, mapping: Any, lora_index_to_id: Any, *args: Any, **kwargs: Any) -> None:
            super().update_metadata(mapping, lora_index_to_id, *args, **kwargs)
            indices = self.token_lora_indices
            slots = indices.unique().tolist()
            if len(slots) == 1:
                self._groups = [(slots[0], slice(None))] if slots[0] >= 0 else []
            else:
                self._groups = [(slot, torch.nonzero(indices == slot).flatten()) for slot in slots if slot >= 0]

        def add_lora_linear(
            self,
            y: torch.Tensor,
            x: torch.Tensor,
            lora_a_stacked: tuple[torch.Tensor, ...],
            lora_b_stacked: tuple[torch.Tensor, ...],
            scale: float,
            output_slices: tuple[int, ...],
            **_: Any,
        ) -> None:
            if not self._groups:
                return
            y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
            for slot, rows in self._groups:
                rank = self.ranks.get(slot)
                mine, start = x[rows].to(lora_a_stacked[0].dtype), 0
                for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                    small = mine @ a[slot, 0, :rank].t()
                    part = (small @ b[slot, 0, :size, :rank].t()) * scale
                    y[rows, start : start + size] = (y[rows, start : start + size] + part).to(y.dtype)
                    start += size

    return Grouped


@functools.cache
def manager() -> type:
    """The worker's LoRA manager, with `Grouped` instead of vLLM's own wrapper."""
    from vllm.lora.model_manager import DEFAULT_LANGUAGE_WRAPPER_KEY, LRUCacheLoRAModelManager
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    class Manager(LRUCacheLoRAModelManager):  # type: ignore[misc]
        """Fills the slots and records the rank of the adapter in each."""

        def _init_punica_wrapper(self, max_num_batched_tokens: int, vllm_config: Any) -> None:
            super()._init_punica_wrapper(max_num_batched_tokens, vllm_config)
            self.wrapper = grouped()(
                max_num_batched_tokens,
                max_batches=self.max_num_seqs,
                device=self.device,
                max_loras=self.lora_config.max_loras,
            )
            for key in list(self.punica_wrapper_mapping) or [DEFAULT_LANGUAGE_WRAPPER_KEY]:
                self.punica_wrapper_mapping[key] = self.wrapper

        def activate_adapter(self, lora_id: int) -> bool:
            done = super().activate_adapter(lora_id)
            if done:
                loras = self._registered_adapters[lora_id].loras.values()
                self.wrapper.ranks[self.lora_index_to_id.index(lora_id)] = max(_rank(one) for one in loras)
            return bool(done)

    class WorkerManager(LRUCacheWorkerLoRAManager):  # type: ignore[misc]
        """vLLM's worker manager, using `Manager`."""

        _manager_cls = Manager

    return WorkerManager


def _rank(weights: Any) -> int:
    parts = weights.lora_a if isinstance(weights.lora_a, list) else [weights.lora_a]
    return max((int(part.shape[0]) for part in parts if part is not None), default=0)


@contextlib.contextmanager
def _placed_on(device: Any) -> Iterator[None]:
    """Wrapped layers are put on the worker's device.

    vLLM 0.32 reads the device from the layer's `weight`, which its int8 kernel for CPUs sets to None once it has packed
    the weights: `'NoneType' object has no attribute 'device'`.
    """
    from vllm.lora.layers import base_linear

    before = base_linear._get_lora_device  # noqa: SLF001 - vLLM has no setting for it
    base_linear._get_lora_device = lambda _layer: device  # noqa: SLF001
    try:
        yield
    finally:
        base_linear._get_lora_device = before  # noqa: SLF001


def wrap(worker: Any, config: Any) -> None:
    """Wrap a loaded model's linear layers so that they apply adapters.

    Args:
        worker: the worker, which has loaded its model without LoRA layers.
        config: vLLM's LoRAConfig.

    Raises:
        ValueError: vLLM doesn't support LoRA for the model's class.
    """
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.lora.utils import get_supported_lora_modules
    from vllm.model_executor.models import supports_lora

    runner = worker.model_runner
    model = runner.get_model()
    if not supports_lora(model):
        raise ValueError(f"vLLM doesn't support LoRA for {type(model).__name__}")
    # An adapter's contribution is small compared to the layer's output, and is rounded once, together with it.
    config.lora_dtype = torch.float32
    # Embeddings and the output layer aren't wrapped: adapters that change them are rejected earlier.
    config.target_modules = sorted(set(get_supported_lora_modules(model)) - set(model.embedding_modules or ()))
    with set_current_vllm_config(worker.vllm_config), _placed_on(worker.device):
        loras = manager()(worker.vllm_config, worker.device, model.embedding_modules)
        runner.model = loras.create_lora_manager(model, worker.vllm_config)
    runner.lora_manager = loras
    runner.lora_config = config
