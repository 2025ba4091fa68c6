"""The adapters that one vLLM engine knows, over its own LoRA manager."""

from __future__ import annotations

from typing import Any


class Attached:
    """The adapters attached to one engine. Not thread-safe: for its loop's thread only.

    Args:
        llm: vLLM's LLMEngine.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._requests: dict[str, Any] = {}
        self._number = 0
        self.leaving: set[str] = set()

    def attach(self, adapter: Any) -> None:
        """Load an adapter. See `Engine.attach`."""
        from vllm.lora.request import LoRARequest

        from llmlab.errors import UnsupportedError

        self.leaving.discard(adapter.digest)
        if adapter.digest in self._requests:
            return
        self._number += 1
        # vLLM's prefix cache is keyed by name and path, so the name must identify the adapter's content.
        request = LoRARequest(adapter.digest, self._number, str(adapter.folder))
        try:
            self._llm.add_lora(request)
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnsupportedError(f"vLLM rejects the adapter {adapter.name}: {why}.", "See %llm logs.") from error
        self._requests[adapter.digest] = request

    def detach(self, adapter: Any) -> None:
        """Mark an adapter to be unloaded by `sweep` once no request uses it."""
        if adapter.digest in self._requests:
            self.leaving.add(adapter.digest)

    def sweep(self, used: set[str]) -> None:
        """Unload the detached adapters that aren't in `used`."""
        for digest in self.leaving - used:
            self._llm.remove_lora(self._requests.pop(digest).lora_int_id)
            self.leaving.discard(digest)

    def request(self, mix: Any) -> Any:
        """The LoRARequest of a mix, which must be one adapter at scale 1; None for the base model.

        Raises:
            GenerationError: it is no longer attached.
        """
        from llmlab.errors import GenerationError

        if not mix:
            return None
        ((adapter, scale),) = mix
        if scale != 1 or adapter.digest not in self._requests.keys() - self.leaving:
            raise GenerationError(f"The adapter {adapter.name} was removed before the request started.")
        return self._requests[adapter.digest]

    def __len__(self) -> int:
        return len(self._requests)
