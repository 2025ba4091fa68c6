"""Converts sampling params to vLLM's, and vLLM's finish reasons and log probabilities to llmlab's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmlab.engines.base import Request
from llmlab.engines.sampling import GREEDY
from llmlab.engines.vllm.guided import structured_outputs
from llmlab.engines.vllm.options import HIGHEST_TEMPERATURE
from llmlab.engines.vllm.processors import EXTRA, chooses
from llmlab.types import FinishReason, TokenLogprob

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "interrupted"}


def vllm_params(
    request: Request,
    end_ids: tuple[int, ...],
    interval: int,
    extra: dict[str, Any] | None = None,
    *,
    processed: bool,
) -> Any:
    """Convert a request's params to vLLM's, for one sequence (each of n choices is a separate request).

    Args:
        request: its params are complete. `llmlab.engines.vllm.guided` handles a guided request's stop strings.
        end_ids: token ids that end the text, unless `params.ignore_eos`.
        interval: tokens per output (the first and the last token are output immediately).
        extra: arguments for llmlab's own logits processors.
        processed: the engine has them: they apply the filters if that is faster, or the only way.
    """
    from vllm.sampling_params import RequestOutputKind
    from vllm.sampling_params import SamplingParams as VllmParams

    params, guide = request.params, request.guide
    # To end a text early, every token must be seen as soon as it is sampled.
    watched = guide is not None and (request.complete or bool(params.stop))
    assert params.temperature is not None
    # vLLM's own filters come after these; a request that uses one has all of its filters applied by llmlab.
    own = processed and params.temperature >= GREEDY and chooses(params)
    extra = {**(extra or {})}
    if own or params.dry_multiplier:
        extra[EXTRA] = (params, request.breakers)
    converted = VllmParams(
        temperature=min(params.temperature, HIGHEST_TEMPERATURE),
        top_p=1.0 if own else params.top_p,
        top_k=0 if own else params.top_k,
        min_p=0.0 if own else params.min_p,
        repetition_penalty=params.repetition_penalty or 1.0,
        presence_penalty=params.presence_penalty or 0.0,
        frequency_penalty=params.frequency_penalty or 0.0,
        logit_bias=dict(params.logit_bias) if params.logit_bias else None,
        min_tokens=params.min_tokens or 0,
        extra_args=extra or None,
        seed=params.seed,
        max_tokens=params.max_tokens,
        stop=[] if guide is not None else list(params.stop),
        stop_token_ids=[*params.stop_token_ids, *(() if params.ignore_eos else end_ids), *request.ends],
        ignore_eos=params.ignore_eos,
        logprobs=params.logprobs,
        flat_logprobs=params.logprobs is not None,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=1 if watched else interval,
        structured_outputs=structured_outputs(guide) if guide is not None else None,
        skip_special_tokens=True,
        include_stop_str_in_output=False,
        skip_clone=True,
    )
    if params.temperature >= GREEDY:
        # VllmParams raises low temperatures and rejects high ones; the sampler supports both. A child process would
        # validate them again: see `options.crosses`.
        converted.temperature = params.temperature
    # Not `bad_words`, which vLLM tokenizes itself: both engines ban the same tokens.
    converted._bad_words_token_ids = [list(word) for word in request.banned] or None  # noqa: SLF001
    return converted


def reason_of(finish_reason: str | None) -> FinishReason:
    """Convert vLLM's finish reason."""
    return _REASONS.get(finish_reason or "", "error")


def token_logprobs(part: Any, request: Request, piece: Callable[[int], bytes]) -> tuple[TokenLogprob, ...]:
    """The log probabilities of a step's tokens.

    Args:
        part: vLLM's CompletionOutput with the new tokens.
        request: its `params.logprobs` is the number of likeliest tokens to return.
        piece: returns a token's bytes in a text.

    Returns:
        One entry per token: the sampled one, and the likeliest (including the sampled one if it is among them).
    """
    flat, wanted = part.logprobs, request.params.logprobs
    if wanted is None or flat is None:
        return ()
    found = []
    for start, end in zip(flat.start_indices, flat.end_indices, strict=True):
        # The sampled token comes first, then the likeliest in descending order.
        entries = [
            (flat.token_ids[i], flat.decoded_tokens[i] or "", float(flat.logprobs[i])) for i in range(start, end)
        ]
        token_id, text, logprob = entries[0]
        found.append(TokenLogprob(token_id, text, logprob, tuple(entries[1 : wanted + 1]), list(piece(token_id))))
    return tuple(found)


def is_dead(error: BaseException) -> bool:
    """Whether a step's error means that the engine is dead."""
    from vllm.v1.engine.exceptions import EngineDeadError

    return isinstance(error, EngineDeadError)
