"""vLLM's own speculation: how it's asked for, and what it brings, read off the model runner step by step."""

from __future__ import annotations

from typing import Any

from llmlab.engines.base import Draft
from llmlab.engines.speculation import SpeculationMeter
from llmlab.engines.vllm import patches
from llmlab.types import Speculation

# vLLM looks for the longest n-gram between these lengths.
_LONGEST, _SHORTEST = 4, 2


def speculative_config(draft: Draft) -> dict[str, Any]:
    """A draft in vLLM's words (`vllm.config.SpeculativeConfig`)."""
    if draft.source is None:
        return {
            "method": "ngram",
            "num_speculative_tokens": draft.tokens,
            "prompt_lookup_max": _LONGEST,
            "prompt_lookup_min": _SHORTEST,
        }
    return {"method": "draft_model", "model": str(draft.source.path), "num_speculative_tokens": draft.tokens}


class Observer:
    """Watches an in-process model runner: what was guessed and what came true, by request. For the loop's thread.

    Now and then it lets a step go by without guesses, to measure what they bring.

    Args:
        runner: vLLM's model runner, whose methods are wrapped for its life.
        meter: takes the figures.
        threads: CPU threads of the decoding loop.
    """

    def __init__(self, runner: Any, meter: SpeculationMeter, threads: int) -> None:
        import torch

        self.meter = meter
        self._requests: dict[str, list[int]] = {}
        self._made = self._checked = self._after_plain = False
        self._prompt = False
        self._tokens = 0.0
        self._scheduled: dict[str, list[int]] = {}

        def propose_draft(propose: Any, scheduler_output: Any, sampled: Any, *args: Any, **options: Any) -> Any:
            # A step without guesses takes other random numbers: where something is drawn, a seed must repeat its text.
            if meter.plain_due() and runner.input_batch.sampling_metadata.all_greedy:
                return [[] for _ in runner.input_batch.req_ids]
            self._made = True
            try:
                return propose(scheduler_output, sampled, *args, **options)
            finally:
                # numba, which looks n-grams up, sets the thread count of all of OpenMP on this thread.
                torch.set_num_threads(threads)

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
        """A step has ended that took so long."""
        plain = not self._made and not self._checked
        # A step that checks without guessing anew, or the first that guesses again, is neither kind.
        if self._tokens and not self._prompt and (plain or (self._made and not self._after_plain)):
            self.meter.step(seconds, self._tokens, drafted=not plain)
        self._after_plain = plain

    def take(self, key: str) -> Speculation | None:
        """A request's figures at its end; None when it had no step."""
        found = self._requests.pop(key, None)
        return self.meter.count(*found) if found is not None else None

    def _note(self, keys: list[str], sampled: list[list[int]]) -> None:
        for key, tokens in zip(keys, sampled, strict=False):
            if not tokens:
                continue
            # vLLM appends a suffix to the id that it was given.
            figures = self._requests.get(key.split("-", 1)[0])
            if figures is None:
                # The first token is the prompt's.
                self._requests[key.split("-", 1)[0]] = [0, 0, 0]
                continue
            figures[0] += len(self._scheduled.get(key, ()))
            figures[1] += len(tokens) - 1
            figures[2] += 1
        self._tokens = sum(len(tokens) for tokens in sampled) / max(len(sampled), 1)
