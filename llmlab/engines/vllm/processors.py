"""The sampling parameters that vLLM doesn't have, as its logits processors: DRY, top_n_sigma, typical_p and XTC.

They call the same definitions as the other engine (`llmlab.engines.sampling`), on the logits in this process's memory.
vLLM rejects processors with a draft, and its runner for GPUs has them in another process: there they are refused.

top_p is applied here too: on a CPU vLLM sorts the vocabulary for it, which takes 10 ms per token for 151,936 tokens.
"""

from __future__ import annotations

import functools
from typing import Any

from llmlab.engines.sampling import candidates, dry, truncates
from llmlab.types import SamplingParams

EXTRA = "llmlab"
"""The key in a request's `extra_args`: its params (`llmlab.types.SamplingParams`), and the breakers of DRY."""

NAMES = [f"{__name__}:Dry", f"{__name__}:Candidates"]
"""The processors, as `EngineArgs.logits_processors` takes them."""


def chooses(params: SamplingParams) -> bool:
    """Whether a request's candidates are chosen here, by all of its filters, instead of by vLLM."""
    return truncates(params) or (params.top_p or 1.0) < 1.0


@functools.cache
def _classes() -> dict[str, type]:
    import numpy as np
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates

    class Processor(LogitsProcessor):  # type: ignore[misc]
        """Keeps the requests of the batch that use it, by row."""

        def __init__(self, *_: Any) -> None:
            self.requests: dict[int, tuple[Any, Any, list[int], list[int]]] = {}

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(self.requests, batch_update, self.state)

        def state(self, params: Any, prompt: list[int] | None, output: list[int]) -> Any:
            own = (params.extra_args or {}).get(EXTRA)
            if own is None or not self.wanted(own[0]):
                return None
            return (*own, prompt or [], output)

        @staticmethod
        def wanted(params: Any) -> bool:
            raise NotImplementedError

    class Dry(Processor):
        """DRY; before the penalties."""

        def is_argmax_invariant(self) -> bool:
            return False

        @staticmethod
        def wanted(params: Any) -> bool:
            return bool(params.dry_multiplier)

        def apply(self, logits: Any) -> Any:
            for row, (params, breakers, prompt, output) in self.requests.items():
                dry(logits[row].numpy(), [*prompt, *output], params, breakers)
            return logits

    class Candidates(Processor):
        """All filters of a request that uses one of them; after the temperature."""

        def is_argmax_invariant(self) -> bool:
            return True

        @staticmethod
        def wanted(params: Any) -> bool:
            return chooses(params)

        def apply(self, logits: Any) -> Any:
            for row, (params, _, _, output) in self.requests.items():
                values = logits[row].numpy()
                ids = candidates(values, params, len(output))
                kept = values[ids]
                values.fill(-np.inf)
                values[ids] = kept
            return logits

    return {"Dry": Dry, "Candidates": Candidates}


def __getattr__(name: str) -> Any:
    if name in ("Dry", "Candidates"):
        return _classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
