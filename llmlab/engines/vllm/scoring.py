"""Log probabilities of a given text, token by token, out of vLLM's `prompt_logprobs`.

In process the whole distribution is taken where vLLM computes it, as a matrix: asking for it through the API would
sort and decode the whole vocabulary at every token. From a core in a child process only the likeliest tokens come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llmlab.engines.vllm import patches
from llmlab.errors import GenerationError

KEY = "score"


def score(
    llm: Any, ids: Sequence[int], first: int, vocab_size: int, *, in_process: bool, top: int
) -> tuple[Any, list[Any]]:
    """Compute what the model expects after each token; call it on the thread that steps vLLM.

    Args:
        llm: vLLM's LLMEngine.
        ids: the text's tokens.
        first: position of the first token whose successor is scored.
        vocab_size: tokens in the vocabulary.
        in_process: the whole distribution can be had.
        top: tokens to ask for where it can't; the rest of the probability is spread evenly over the others.

    Returns:
        float32, shape (len(ids) - 1 - first, vocabulary): row r is ln p(. | ids[: first + r + 1]); and what the steps
        brought to other requests, to be delivered.

    Raises:
        GenerationError: vLLM gave no log probabilities.
    """
    from vllm.sampling_params import SamplingParams

    params = SamplingParams(
        max_tokens=1, temperature=0.0, prompt_logprobs=0 if in_process else top, flat_logprobs=True, detokenize=False
    )
    llm.add_request(KEY, {"type": "token", "prompt_token_ids": list(ids)}, params)
    others: list[Any] = []
    last: Any = None
    seen: list[Any] = []
    with patches.watch_prompt_logprobs(llm, seen) if in_process else _nothing():
        while last is None or not last.finished:
            for output in llm.step():
                if output.request_id == KEY:
                    last = output
                else:
                    others.append(output)
    rows = _captured(seen, len(ids) - 1) if in_process else _from_top(last.prompt_logprobs, len(ids), vocab_size)
    return rows[first:, :vocab_size], others


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _captured(seen: list[Any], rows: int) -> Any:
    import numpy as np

    found = np.concatenate(seen) if seen else np.empty((0, 0), np.float32)
    if len(found) != rows:
        raise GenerationError(f"vLLM gave log probabilities for {len(found)} of {rows} tokens.", "See %llm logs.")
    return found


def _from_top(flat: Any, count: int, vocab_size: int) -> Any:
    """Rows from the likeliest tokens: what they leave of the probability is spread evenly over all others."""
    import numpy as np

    rows = np.empty((count - 1, vocab_size), dtype=np.float32)
    for position in range(1, count):
        start, end = flat.start_indices[position], flat.end_indices[position]
        ids = np.asarray(flat.token_ids[start:end], dtype=np.int64)
        values = np.asarray(flat.logprobs[start:end], dtype=np.float64)
        ids, at = np.unique(ids, return_index=True)
        left = max(1.0 - float(np.exp(values[at]).sum()), 1e-9)
        rows[position - 1] = np.log(left / max(vocab_size - len(ids), 1))
        rows[position - 1][ids] = values[at]
    return rows
