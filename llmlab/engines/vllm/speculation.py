"""vLLM's speculative decoding: its config, a patch, and its measurement in the model runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmlab.engines.base import Draft
from llmlab.engines.speculation import SpeculationMeter
from llmlab.engines.vllm import patches
from llmlab.types import Speculation

# vLLM looks up the longest matching n-gram between these lengths.
_LONGEST, _SHORTEST = 4, 2


def speculative_config(draft: Draft) -> dict[str, Any]:
    """A draft as `vllm.config.SpeculativeConfig`."""
    if draft.source is None:
        return {
            "method": "ngram",
            "num_speculative_tokens": draft.tokens,
            "prompt_lookup_max": _LONGEST,
            "prompt_lookup_min": _SHORTEST,
        }
    return {"method": "draft_model", "model": str(draft.source.path), "num_speculative_tokens": draft.tokens}


class Observer:
    """Counts an in-process model runner's drafted and accepted tokens by request. For the loop's thread only.

    Occasionally it makes a step run without drafted tokens, to measure the speed-up.

    Args:
        runner: vLLM's model runner, whose methods are wrapped permanently.
        meter: receives the measurements.
        set_threads: sets the decoding loop's number of threads again.
    """

    def __init__(self, runner: Any, meter: SpeculationMeter, set_threads: Callable[[], None]) -> None:
        self.meter = meter
        self._requests: dict[str, list[int]] = {}
        self._made = self._checked = self._after_plain = False
        self._prompt = False
        self._tokens = 0.0
        self._scheduled: dict[str, list[int]] = {}

        def propose_draft(propose: Any, scheduler_output: Any, sampled: Any, *args: Any, **options: Any) -> Any:
            # A step without drafted tokens uses different random numbers, so skip it only if all requests are greedy: a
            # seed must reproduce its text.
            if meter.plain_due() and runner.input_batch.sampling_metadata.all_greedy:
                return [[] for _ in runner.input_batch.req_ids]
            self._made = True
            try:
                return propose(scheduler_output, sampled, *args, **options)
            finally:
                # numba, which does the n-gram lookup, sets OpenMP's thread count on this thread.
                set_threads()

        def execute_model(execute: Any, scheduler_output: Any, *args: Any, **options: Any) -> Any:
            self._scheduled = scheduler_output.scheduled_spec_decode_tokens
            counts = scheduler_output.num_scheduled_tokens
            self._prompt = any(n > 1 + len(self._scheduled.get(key, ())) for key, n in counts.items())
            self._checked = bool(self._scheduled)
            self._made = False
            self._tokens = 0.0
            return execute(scheduler_output, *args, **options)

        def sample_tokens(sample: Any, *args: Any, **options: Any) -> Any:
            output = sample(*args, **options)
            ids = getattr(output, "sampled_token_ids", None)
            if ids:
                self._note(output.req_ids, ids)
            return output

        patches.watch_runner(runner, propose_draft, execute_model, sample_tokens)

    def step(self, seconds: float) -> None:
        """Record a step that took `seconds`."""
        plain = not self._made and not self._checked
        # A step that verifies without drafting, or the first that drafts again, is neither kind.
        if self._tokens and not self._prompt and (plain or (self._made and not self._after_plain)):
            self.meter.step(seconds, self._tokens, drafted=not plain)
        self._after_plain = plain

    def take(self, key: str) -> Speculation | None:
        """Remove and return an ended request's counts; None if it had no step."""
        found = self._requests.pop(key, None)
        return self.meter.count(*found) if found is not None else None

    def _note(self, keys: list[str], sampled: list[list[int]]) -> None:
        for key, tokens in zip(keys, sampled, strict=False):
            if not tokens:
                continue
            # vLLM appends a suffix to the request id.
            figures = self._requests.get(key.split("-", 1)[0])
            if figures is None:
                # The first token comes from the prompt's step.
                self._requests[key.split("-", 1)[0]] = [0, 0, 0]
                continue
            figures[0] += len(self._scheduled.get(key, ()))
            figures[1] += len(tokens) - 1
            figures[2] += 1
        self._tokens = sum(len(tokens) for tokens in sampled) / max(len(sampled), 1)
