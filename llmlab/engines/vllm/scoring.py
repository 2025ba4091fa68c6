"""Per-token log probabilities of given texts, from vLLM's `prompt_logprobs`.

In process, the full distribution is captured where vLLM computes it, as a matrix: the API would sort and decode the
entire vocabulary for every token. A core in a child process returns only the likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlab.engines.base import Scored
from llmlab.engines.vllm import patches
from llmlab.errors import GenerationError

KEY = "score"


def score(
    llm: Any, texts: Sequence[Scored], vocab_size: int, *, in_process: bool, top: int, lora: Any = None
) -> tuple[list[Any], list[Any]]:
    """Compute the next-token distributions along texts as one batch. Call it on the thread that steps vLLM.

    Args:
        llm: vLLM's LLMEngine.
        texts: tokens, and the position of the first one whose successor is scored.
        vocab_size: tokens in the vocabulary.
        in_process: the full distribution is available.
        top: tokens to request otherwise; the remaining probability is spread evenly over the others.
        lora: the adapter's LoRARequest; None: the base model.

    Returns:
        Per text, float32 of shape (len(ids) - 1 - first, vocabulary): row r is ln p(. | ids[: first + r + 1]); and
        other requests' outputs from these steps, to be delivered.

    Raises:
        GenerationError: vLLM returned too few log probabilities.
    """
    import numpy as np
    from vllm.sampling_params import SamplingParams

    wanted: dict[str, Any] = {f"{KEY}{place}": None for place in range(len(texts))}
    params = SamplingParams(
        max_tokens=1, temperature=0.0, prompt_logprobs=0 if in_process else top, flat_logprobs=True, detokenize=False
    )
    places: dict[str, int] = {}
    for place, (key, (ids, _)) in enumerate(zip(wanted, texts, strict=True)):
        prompt = {"type": "token", "prompt_token_ids": list(ids)}
        places[llm.add_request(key, prompt, params.clone(), lora_request=lora)] = place
    if not in_process:
        others = _run(llm, wanted)
        return [
            _from_top(output.prompt_logprobs, len(ids), vocab_size)[first:]
            for output, (ids, first) in zip(wanted.values(), texts, strict=True)
        ], others
    rows = [np.empty((len(ids) - 1 - first, vocab_size), dtype=np.float32) for ids, first in texts]
    left = [len(one) for one in rows]

    def keep(request: str, position: int, logprobs: Any) -> None:
        """The distributions of a request from a position of its prompt on."""
        place = places[request]
        first = texts[place][1]
        part = logprobs[max(first - position, 0) :, :vocab_size]
        begin = max(position - first, 0)
        rows[place][begin : begin + len(part)] = part.float().numpy()
        left[place] -= len(part)

    with patches.watch_prompt_logprobs(llm, keep):
        others = _run(llm, wanted)
    if any(left):
        missing = sum(map(abs, left))
        raise GenerationError(f"vLLM returned no log probabilities for {missing} tokens.", "See %llm logs.")
    return rows, others


def of_tokens(
    llm: Any, before: Sequence[int], tokens: Sequence[int], top: int, lora: Any
) -> tuple[list[Any], list[Any]]:
    """The log probabilities of tokens that weren't sampled, after a text. Call it on the thread that steps vLLM.

    One request per token, which may sample only that token; the log probabilities are those before this limit. With
    `prompt_logprobs` vLLM would hold a matrix over the prompt and the vocabulary.

    Args:
        llm: vLLM's LLMEngine.
        before: the tokens before them.
        tokens: the tokens.
        top: the likeliest tokens to return for each.
        lora: the adapter's LoRARequest, or None.

    Returns:
        vLLM's CompletionOutput for each token; and other requests' outputs from these steps, to be delivered.
    """
    from vllm.sampling_params import SamplingParams

    wanted: dict[str, Any] = {f"{KEY}{place}": None for place in range(len(tokens))}
    for place, (key, token) in enumerate(zip(wanted, tokens, strict=True)):
        params = SamplingParams(
            max_tokens=1, temperature=0.0, logprobs=top, flat_logprobs=True, allowed_token_ids=[token], ignore_eos=True
        )
        prompt = {"type": "token", "prompt_token_ids": [*before, *tokens[:place]]}
        llm.add_request(key, prompt, params, lora_request=lora)
    others = _run(llm, wanted)
    return [output.outputs[0] for output in wanted.values()], others


def _run(llm: Any, wanted: dict[str, Any]) -> list[Any]:
    """Step until these requests are finished; fills in their last outputs, and returns those of others."""
    others: list[Any] = []
    while any(output is None or not output.finished for output in wanted.values()):
        for output in llm.step():
            if output.request_id in wanted:
                wanted[output.request_id] = output
            else:
                others.append(output)
    return others


def _from_top(flat: Any, count: int, vocab_size: int) -> Any:
    """Rows from the likeliest tokens; the remaining probability is spread evenly over all others."""
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
