"""A sequence's sampler chain, and log probabilities of the raw distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmlab.types import SamplingParams, TokenLogprob

# llama.cpp reads this seed as "draw one from the clock" (LLAMA_DEFAULT_SEED), which would not be repeatable.
_CLOCK_SEED = 0xFFFFFFFF


def build_chain(params: SamplingParams) -> Any:
    """Make a `llama_sampler` chain. The caller frees it with `llama_sampler_free`.

    The order is vLLM's (`v1/sample/sampler.py`): temperature, min_p, top_k, top_p, then a draw from the seed.
    Temperature 0 is greedy, whatever the rest says.

    Args:
        params: no gaps left in them.
    """
    import llama_cpp

    options = llama_cpp.llama_sampler_chain_default_params()
    options.no_perf = True
    chain = llama_cpp.llama_sampler_chain_init(options)

    def add(sampler: Any) -> None:
        # The chain owns what is added, and frees it.
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    temperature = params.temperature or 0.0
    if temperature == 0.0:
        add(llama_cpp.llama_sampler_init_greedy())
        return chain
    if temperature != 1.0:
        add(llama_cpp.llama_sampler_init_temp(temperature))
    if params.min_p:
        add(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
    if params.top_k:
        add(llama_cpp.llama_sampler_init_top_k(min(params.top_k, 2**31 - 1)))
    if params.top_p is not None and params.top_p < 1.0:
        add(llama_cpp.llama_sampler_init_top_p(params.top_p, 1))
    seed = (params.seed or 0) & 0xFFFFFFFF
    add(llama_cpp.llama_sampler_init_dist(seed if seed != _CLOCK_SEED else _CLOCK_SEED - 1))
    return chain


def token_logprob(logits: Any, token: int, top: int, name: Callable[[int], str]) -> TokenLogprob:
    """The natural-log softmax of raw logits, at the chosen token and at the likeliest ones.

    Args:
        logits: float32 array, shape (vocabulary,).
        token: the chosen token's id.
        top: how many of the likeliest to list.
        name: the text of a token id.
    """
    import numpy as np

    exact = logits.astype(np.float64)
    peak = exact.max()
    norm = peak + np.log(np.exp(exact - peak).sum())
    best: tuple[tuple[int, str, float], ...] = ()
    if top > 0:
        top = min(top, exact.shape[0])
        ids = np.argpartition(exact, -top)[-top:]
        # Ties go to the lower id, as greedy sampling has it.
        ids = ids[np.lexsort((ids, -exact[ids]))]
        best = tuple((int(i), name(int(i)), float(exact[i] - norm)) for i in ids)
    return TokenLogprob(token, name(token), float(exact[token] - norm), best)
