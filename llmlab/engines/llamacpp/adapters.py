"""The LoRA adapters of a loaded model, and the scheduling of adapter mixes: one mix per step.

llama.cpp applies adapters to an entire context. Several contexts could share the weights, but each would need its
own KV cache. Switching adapters on one context rebuilds its graphs (about 1 ms on nano), so groups of sequences
take turns that are much longer than that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llmlab.engines.base import Adapter, Mix, mix_key
from llmlab.errors import GenerationError, UnsupportedError

if TYPE_CHECKING:
    from llmlab.engines.llamacpp.context import NativeContext
    from llmlab.engines.llamacpp.model import NativeModel
    from llmlab.engines.llamacpp.sequence import Sequence

# Seconds that a group decodes before the next one's turn; at least one step, which on a large model takes longer.
TURN_S = 0.01


class AdapterSlots:
    """The attached adapters. Not thread-safe: for the loop's thread only.

    Args:
        model: the base model; freeing it frees its adapters.
    """

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._handles: dict[str, Any] = {}
        self._leaving: set[str] = set()
        self._set = ""
        self._turn = ""
        self._turn_ends = 0.0
        self._jumped = False

    def attach(self, adapter: Adapter) -> None:
        """Load an adapter next to the weights.

        Raises:
            UnsupportedError: llama.cpp rejects it; the reason is in the log.
        """
        import llama_cpp

        self._leaving.discard(adapter.digest)
        if adapter.digest in self._handles:
            return
        handle = llama_cpp.llama_adapter_lora_init(self._model.handle, str(adapter.gguf).encode())
        if not handle:
            raise UnsupportedError(f"llama.cpp rejects the adapter {adapter.name} ({adapter.gguf}).", "See %llm logs.")
        self._handles[adapter.digest] = handle

    def detach(self, adapter: Adapter) -> None:
        """Mark an adapter to be freed by `sweep` once no sequence uses it."""
        if adapter.digest in self._handles:
            self._leaving.add(adapter.digest)

    def sweep(self, sequences: list[Sequence], context: NativeContext) -> None:
        """Free the detached adapters that none of these sequences uses."""
        import llama_cpp

        used = {adapter.digest for one in sequences for adapter, _ in one.request.adapter or ()}
        for digest in self._leaving - used:
            if digest in self._set:
                self.use(context, mix_key(None), None)
            llama_cpp.llama_adapter_lora_free(self._handles.pop(digest))
            self._leaving.discard(digest)

    @property
    def leaving(self) -> bool:
        """Whether detached adapters are waiting to be freed."""
        return bool(self._leaving)

    def missing(self, mix: Mix | None) -> str:
        """The name of an adapter in a mix that isn't attached; "" if all are."""
        here = self._handles.keys() - self._leaving
        return next((adapter.name for adapter, _ in mix or () if adapter.digest not in here), "")

    def check(self, mix: Mix | None) -> None:
        """Raise GenerationError if an adapter in a mix isn't attached."""
        gone = self.missing(mix)
        if gone:
            raise GenerationError(f"The adapter {gone} was removed before the request started.")

    def use(self, context: NativeContext, key: str, mix: Mix | None) -> None:
        """Apply a mix, whose `mix_key` is `key`, to the next steps."""
        if key == self._set:
            return
        self.use_alone(context, mix)
        self._set = key

    def use_alone(self, context: NativeContext, mix: Mix | None) -> None:
        """Apply a mix to another context than that of the running requests."""
        import ctypes

        import llama_cpp

        # A mix may contain a digest twice, under two names; llama.cpp accepts each adapter once.
        scales: dict[str, float] = {}
        for adapter, scale in mix or ():
            scales[adapter.digest] = scales.get(adapter.digest, 0.0) + scale
        count = len(scales)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*[self._handles[digest] for digest in scales])
        factors = (ctypes.c_float * count)(*scales.values())
        llama_cpp.llama_set_adapters_lora(context.handle, handles, count, factors)

    def group(self, running: list[Sequence]) -> list[Sequence]:
        """The sequences of the mix whose turn it is.

        Mixes take turns, round robin. A turn ends early for a group with a sequence that has no token yet, but not
        twice in a row, so that a stream of new requests can't starve the others.
        """
        if not self._handles:
            return running
        keys = sorted({one.key for one in running})
        if len(keys) == 1:
            self._turn = keys[0]
            return running
        now = time.perf_counter()
        new = {one.key for one in running if not one.generated}
        jump = bool(new) and self._turn not in new and not self._jumped
        if self._turn not in keys or now >= self._turn_ends or jump:
            after = [key for key in keys if key > self._turn] + [key for key in keys if key <= self._turn]
            self._turn = next((key for key in after if key in new), after[0]) if jump else after[0]
            self._turn_ends = now + TURN_S
            self._jumped = jump
        return [one for one in running if one.key == self._turn]
