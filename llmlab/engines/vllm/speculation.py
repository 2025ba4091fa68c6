"""vLLM's speculative decoding: its config, a patch, and its measurement in the model runner."""

from __future__ import annotations

from typing import Any

from llmlab.engines.base import Draft
from llmlab.engines.speculation import SpeculationMeter
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


def patch_expand_batch() -> None:
    """Fix a function that is broken in the CPU build (vLLM 0.32): it expands a request's temperature to its drafts.

    `cpu_triton_utils._expand_kernel_impl` writes the result into a copy, so the logits are divided by uninitialized
    memory, and sampled text is noise (nano's mean log probability falls from -0.6 to -8). Top-k and top-p are
    affected too.
    """
    from vllm.v1.sample import rejection_sampler

    rejection_sampler.expand_batch_to_tokens = _expand


def _expand(x: Any, cu_num_tokens: Any, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
    """Replaces `vllm.v1.sample.rejection_sampler.expand_batch_to_tokens`: repeats a request's value per drafted token.

    Args:
        x: values, shape (requests,).
        cu_num_tokens: cumulative number of drafted tokens, shape (requests,).
        num_tokens: total number of drafted tokens.
        replace_from, replace_to: a value to replace, and its replacement.
    """
    import torch

    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    values = torch.where(x == replace_from, torch.full_like(x, replace_to), x)
    return torch.repeat_interleave(values, counts.long(), output_size=num_tokens)


class Observer:
    """Counts an in-process model runner's drafted and accepted tokens by request. For the loop's thread only.

    Occasionally it makes a step run without drafted tokens, to measure the speed-up.

    Args:
        runner: vLLM's model runner, whose methods are wrapped permanently.
        meter: receives the measurements.
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
        propose, execute, sample = runner.propose_draft_token_ids, runner.execute_model, runner.sample_tokens

        def propose_draft_token_ids(scheduler_output: Any, sampled: Any, *args: Any, **options: Any) -> Any:
            # A step without drafted tokens uses different random numbers, so skip it only if all requests are greedy: a
            # seed must reproduce its text.
            if meter.plain_due() and runner.input_batch.sampling_metadata.all_greedy:
                return [[] for _ in runner.input_batch.req_ids]
            self._made = True
            try:
                return propose(scheduler_output, sampled, *args, **options)
            finally:
                # numba, which does the n-gram lookup, sets OpenMP's thread count on this thread.
                torch.set_num_threads(threads)

        def execute_model(scheduler_output: Any, *args: Any, **options: Any) -> Any:
            self._scheduled = scheduler_output.scheduled_spec_decode_tokens
            counts = scheduler_output.num_scheduled_tokens
            self._prompt = any(n > 1 + len(self._scheduled.get(key, ())) for key, n in counts.items())
            self._checked = bool(self._scheduled)
            self._made = False
            self._tokens = 0.0
            return execute(scheduler_output, *args, **options)

        def sample_tokens(*args: Any, **options: Any) -> Any:
            output = sample(*args, **options)
            ids = getattr(output, "sampled_token_ids", None)
            if ids:
                self._note(output.req_ids, ids)
            return output

        runner.propose_draft_token_ids = propose_draft_token_ids
        runner.execute_model = execute_model
        runner.sample_tokens = sample_tokens

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
