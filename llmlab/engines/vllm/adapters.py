"""The adapters that one vLLM engine knows, over its own LoRA manager."""

from __future__ import annotations

from typing import Any


class Attached:
    """The adapters that one engine knows; for its loop's thread alone.

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
        # vLLM's prefix cache goes by name and path, so the name says what the adapter is.
        request = LoRARequest(adapter.digest, self._number, str(adapter.folder))
        try:
            self._llm.add_lora(request)
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnsupportedError(f"vLLM refuses the adapter {adapter.name}: {why}.", "See %llm logs.") from error
        self._requests[adapter.digest] = request

    def detach(self, adapter: Any) -> None:
        """Let an adapter go as soon as no request uses it (`sweep`)."""
        if adapter.digest in self._requests:
            self.leaving.add(adapter.digest)

    def sweep(self, used: set[str]) -> None:
        """Forget what was detached and isn't used."""
        for digest in self.leaving - used:
            self._llm.remove_lora(self._requests.pop(digest).lora_int_id)
            self.leaving.discard(digest)

    def request(self, mix: Any) -> Any:
        """VLLM's word for a mix, which holds one adapter at scale 1; None for the base model.

        Raises:
            GenerationError: it isn't attached any more.
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
