"""Starts a request again in vLLM from a point in its own output, as a logits processor.

vLLM can't take tokens back. The request is submitted anew; the processor forces the tokens that are kept and excludes
those that must not come again. vLLM's grammar follows the forced tokens by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

NAME = f"{__name__}:Replay"
"""The processor, as `EngineArgs.logits_processors` takes it."""

KEY = "llmlab_replay"
"""The key in a request's `extra_args`."""


def extra_args(kept: Sequence[int], bans: Mapping[int, Collection[int]]) -> dict[str, Any]:
    """The arguments that make a request begin with tokens it has generated before.

    Args:
        kept: the tokens to repeat.
        bans: position in the output -> tokens that must not come there.
    """
    return {KEY: [list(kept), {str(at): sorted(banned) for at, banned in bans.items()}]}


@functools.cache
def _processor() -> type:
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    class Replay(AdapterLogitsProcessor):  # type: ignore[misc]
        """Forces and excludes tokens at the beginning of an output."""

        def is_argmax_invariant(self) -> bool:
            return False

        def new_req_logits_processor(self, params: Any) -> Any:
            own = (params.extra_args or {}).get(KEY)
            if own is None:
                return None
            kept, bans = own

            def apply(output: list[int], logits: Any) -> Any:
                at = len(output)
                if at < len(kept):
                    value = logits[kept[at]].item()
                    logits.fill_(float("-inf"))
                    logits[kept[at]] = value
                elif str(at) in bans:
                    logits[bans[str(at)]] = float("-inf")
                return logits

            return apply

    return Replay


def __getattr__(name: str) -> Any:
    if name == "Replay":
        return _processor()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
